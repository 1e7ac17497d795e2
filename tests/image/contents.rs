//! What is in the image.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::dockerfile::{Dockerfile, image, repository};
use crate::elf::Needs;

#[test]
fn the_image_has_the_program_and_the_licences_and_nothing_else() -> Result<()> {
    let mut found = Vec::new();
    let mut folders = vec![image()?];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(format!("/{}", entry.path().strip_prefix(image()?)?.display()));
            }
        }
    }
    found.sort();
    ensure!(found == ["/bellwether", "/licenses/LICENSE", "/licenses/THIRD-PARTY-LICENSES"], "{found:?}");
    ensure!(Dockerfile::read()?.entrypoint()? == "/bellwether");
    let mode = fs::metadata(image()?.join("bellwether"))?.permissions().mode();
    ensure!(mode & 0o111 == 0o111, "whoever is user there may run it: {mode:o}");
    Ok(())
}

#[test]
fn the_program_needs_no_linker_and_no_library_of_the_system() -> Result<()> {
    let needs = Needs::of(&fs::read(image()?.join("bellwether"))?)?;
    ensure!(needs == Needs::default(), "{needs:?}");
    // What is asked can be answered otherwise: this test's own program is a usual one.
    let usual = Needs::of(&fs::read(std::env::current_exe()?)?)?;
    ensure!(usual.interpreter.is_some() && usual.libraries > 0, "{usual:?}");
    Ok(())
}

#[test]
fn the_licences_of_what_is_linked_in_are_there() -> Result<()> {
    let licences = fs::read_to_string(image()?.join("licenses/THIRD-PARTY-LICENSES"))?;
    // One of each kind: dual, MIT only, ISC, a crate without a text of its own; and what is no crate.
    for name in ["tokio ", "tonic ", "ring ", "tonic-prost ", "The GNU C library", "The Rust standard library"] {
        ensure!(licences.contains(name), "{name}");
    }
    // Only of tests and of build scripts.
    for name in ["\nproptest ", "\nprost-build "] {
        ensure!(!licences.contains(name), "{name}");
    }
    Ok(())
}

#[test]
fn the_image_is_small_and_its_contents_are_listed() -> Result<()> {
    let list = |folder: &Path| {
        Command::new(repository().join("scripts/image-contents.sh")).env("BELLWETHER_IMAGE", folder).output()
    };
    let output = list(&image()?)?;
    let listed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{output:?}");
    for file in ["/bellwether", "/licenses/LICENSE", "/licenses/THIRD-PARTY-LICENSES"] {
        let bytes = fs::metadata(image()?.join(&file[1..]))?.len();
        let is_it = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&bytes.to_string().as_str()) && words.last() == Some(&file)
        };
        ensure!(listed.lines().any(is_it), "no {file} of {bytes} in\n{listed}");
    }
    // One byte more than it may be is too much, and nothing at all is too little.
    let folder = TempDir::new()?;
    ensure!(!list(folder.path())?.status.success(), "an empty image passes");
    for (bytes, passes) in [(10_000_000, true), (10_000_001, false)] {
        fs::File::create(folder.path().join("large"))?.set_len(bytes)?;
        ensure!(list(folder.path())?.status.success() == passes, "{bytes}");
    }
    Ok(())
}
