#!/usr/bin/env bash
# Fails when the core (src/election) does IO, reads a clock, draws randomness, logs, or reaches into the shell:
# the same state and the same input must give the same output, or the simulation proves nothing.
#
#   scripts/check-core-is-pure.sh [FOLDER]      checks FOLDER, default src/election
#   scripts/check-core-is-pure.sh --self-test   shows that it finds planted violations and lets innocent code pass
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Parts of std that touch the world, and the hash collections, whose order of iteration differs from run to run.
readonly std_impure='env|fs|io|net|os|process|thread|random|sync::(mpsc|Mutex|RwLock|Condvar|atomic)'
readonly std_clock='Instant|SystemTime|UNIX_EPOCH'
readonly hash='HashMap|HashSet|RandomState|DefaultHasher'
# What `use` may start with besides std and the core's own modules. proptest and insta: tests only.
readonly crates_allowed='std|core|alloc|crate|self|super|thiserror|proptest|insta'
readonly modules_allowed='election|protections'
readonly macros_forbidden='println|print|eprintln|eprint|dbg|thread_local|include_str|include_bytes|env|option_env'

# statements FILE: the code without comments and blanks, one statement or block a line, so that grouped and
# wrapped imports are seen whole. String literals are emptied: their text is not code.
statements() {
  sed -E -e 's/"([^"\\]|\\.)*"/""/g' -e 's#//.*$##' "$1" | tr '\n' ' ' | sed -E -e 's/[[:space:]]+/ /g' -e 's/;/;\n/g'
}

# violations FOLDER: one line per violation.
violations() {
  local file own_modules shell_modules
  own_modules=$(find "$1" -mindepth 1 \( -type d -o -name '*.rs' \) | sed -E 's|.*/||; s|\.rs$||' | paste -sd '|')
  shell_modules=$(sed -nE 's/^(pub )?mod ([a-z_]+);.*/\2/p' src/lib.rs | grep -Evx "$modules_allowed" | paste -sd '|')
  while IFS= read -r file; do
    statements "$file" | {
      grep -Eo \
        -e "\b(std|core)::($std_impure)\b[^;]{0,60}" \
        -e "\bstd::\{[^;]*\b(env|fs|io|net|os|process|thread|random)\b[^;]{0,60}" \
        -e "\bstd::time::($std_clock)\b" \
        -e "\bstd::time::(\*|self)" \
        -e "\buse std::time( as [a-z_]+)?;" \
        -e "\bstd::time::\{[^;]*\b($std_clock)\b[^;]{0,60}" \
        -e "\bstd::\{[^;]*\btime::[^;]*\b($std_clock)\b" \
        -e "\b($hash)\b" \
        -e "\b(tokio|futures_util|async_std|rand|getrandom|tracing|log|nix|libc|etcd_client|axum|hyper|jiff)::[^;]{0,60}" \
        -e "\basync (fn|move|\{)|\.await\b" \
        -e "\b($macros_forbidden)!" || true
    } | sed "s|^|$file: |"
    # Each `use` and each inline `crate::…` must be one of those allowed.
    { statements "$file" | grep -Eo "(^|[ {}])(pub(\([a-z]+\))? )?use [^;]+;" |
      grep -Ev "use ($crates_allowed|$own_modules)\b" || true; } | sed "s|^|$file: |"
    { statements "$file" | grep -Eo "\bcrate::[A-Za-z_{*]+[^;]{0,60}" |
      grep -Ev "^crate::($modules_allowed)\b" || true; } | sed "s|^|$file: |"
    # The long way round to the same modules.
    { statements "$file" | grep -Eo "\bsuper::\{?($shell_modules)\b[^;]{0,60}" || true; } | sed "s|^|$file: |"
  done < <(find "$1" -name '*.rs' | sort)
}

check() {
  local found
  [[ -n $(find "$1" -name '*.rs' -print -quit) ]] || {
    echo "$1: no Rust files to check"
    return 1
  }
  found=$(violations "$1")
  [[ -z $found ]] && return 0
  echo "$found"
  return 1
}

self_test() {
  local folder planted innocent bad=0
  folder=$(mktemp -d)
  # shellcheck disable=SC2064 # now is right: the variable is local
  trap "rm -rf '$folder'" EXIT
  local planted_all=(
    'use tokio::time::sleep;'
    'fn f() { tokio::spawn(g()); }'
    'use std::time::Instant;'
    'use std::time::{Duration, Instant};'
    $'use std::time::{\n    Duration,\n    SystemTime,\n};'
    'use std::{fmt, time::{Duration, Instant}};'
    'fn f() { let t = std::time::SystemTime::now(); }'
    'use std::time;'
    'use std::{collections::BTreeMap, fs};'
    'fn f() { std::fs::read("x"); }'
    'use std::net::TcpStream;'
    'fn f() { std::thread::sleep(d); }'
    'use std::process;'
    'fn f() { std::env::var("X"); }'
    'use rand::Rng;'
    'fn f() { tracing::info!("x"); }'
    'fn f() { println!("x"); }'
    'use std::collections::HashMap;'
    'use crate::clock;'
    'use super::clock;'
    'fn f() { super::super::clock::now(); }'
    'use crate::{election::View, etcd::Pool};'
    'fn f() { crate::clock::now(); }'
    'use serde::Serialize;'
    'pub use etcd_client::Client;'
    'async fn f() {}'
  )
  local innocent_all=(
    'use std::time::Duration;'
    'use std::sync::Arc;'
    'use std::collections::{BTreeMap, VecDeque};'
    'use crate::election::View;'
    'use crate::protections::Protections;'
    'use super::instant::Instant;'
    'use thiserror::Error;'
    '// tokio::spawn is what the driver does'
    'fn f() { let s = "std::fs::read"; }'
  )
  for planted in "${planted_all[@]}"; do
    printf '%s\n' "$planted" >"$folder/planted.rs"
    if check "$folder" >/dev/null; then
      echo "not found: $planted"
      bad=1
    fi
  done
  for innocent in "${innocent_all[@]}"; do
    printf '%s\n' "$innocent" >"$folder/planted.rs"
    if ! check "$folder" >/dev/null; then
      echo "wrongly found: $innocent"
      bad=1
    fi
  done
  return "$bad"
}

case ${1:-} in
  --self-test) self_test ;;
  *) check "${1:-src/election}" ;;
esac
