//! What the Dockerfile says about the image, as far as a container runtime goes by it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The Dockerfile's instructions, one after the other.
pub struct Dockerfile(Vec<(String, String)>);

impl Dockerfile {
    /// This repository's.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(repository().join("Dockerfile"))?;
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let instructions = lines.join("\n").replace("\\\n", " ");
        let split = |line: &str| Some(line.split_once(' ')?).map(|(word, rest)| (word.to_owned(), rest.to_owned()));
        Ok(Self(instructions.lines().filter_map(split).collect()))
    }

    /// The instruction's arguments in the final stage, where it stands once.
    pub fn last(&self, word: &str) -> Result<&str> {
        let begin = self.0.iter().rposition(|(word, _)| word == "FROM").context("there is a stage")?;
        let mut found = self.0[begin..].iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.as_str());
        let one = found.next().with_context(|| format!("the final stage has no {word}"))?;
        ensure!(found.next().is_none(), "the final stage has more than one {word}");
        Ok(one)
    }

    /// A build argument's default.
    pub fn default(&self, argument: &str) -> Result<&str> {
        let default = |(word, rest): &'_ (String, String)| word == "ARG" && rest.starts_with(&format!("{argument}="));
        let (_, rest) = self.0.iter().find(|it| default(it)).with_context(|| format!("no ARG {argument}"))?;
        Ok(rest.split_once('=').map_or("", |(_, value)| value))
    }

    /// `ENTRYPOINT`: one program, by its path in the image.
    pub fn entrypoint(&self) -> Result<String> {
        let words: Vec<String> = serde_json::from_str(self.last("ENTRYPOINT")?)?;
        ensure!(words.len() == 1 && words[0].starts_with('/'), "{words:?}");
        Ok(words[0].clone())
    }

    /// `USER`: user and group, as numbers.
    pub fn user(&self) -> Result<(u32, u32)> {
        let (user, group) = self.last("USER")?.split_once(':').context("user and group")?;
        Ok((user.parse()?, group.parse()?))
    }
}

/// Where the sources are.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that has what the image has: `BELLWETHER_IMAGE`, else where scripts/image-stages.sh leaves it.
pub fn image() -> Result<PathBuf> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let usual = repository().join("target/image").join(architecture).join("root");
    let folder = std::env::var_os("BELLWETHER_IMAGE").map_or(usual, PathBuf::from);
    ensure!(folder.is_dir(), "{} is not there: `make image-binary` makes it, and says where", folder.display());
    Ok(folder)
}

#[test]
fn the_label_s_version_and_the_compiler_s_are_those_of_the_manifest() -> Result<()> {
    let dockerfile = Dockerfile::read()?;
    ensure!(dockerfile.default("VERSION")? == env!("CARGO_PKG_VERSION"));
    let compiler = dockerfile.default("RUST_VERSION")?;
    ensure!(compiler.starts_with(concat!(env!("CARGO_PKG_RUST_VERSION"), ".")), "{compiler}");
    Ok(())
}

#[test]
fn the_user_is_a_number_and_not_root() -> Result<()> {
    let (user, group) = Dockerfile::read()?.user()?;
    ensure!(user > 0 && group > 0, "{user}:{group}");
    Ok(())
}

#[test]
fn each_label_that_names_a_build_argument_comes_after_it() -> Result<()> {
    let dockerfile = Dockerfile::read()?;
    let labels = dockerfile.last("LABEL")?;
    for (label, argument) in
        [("version", "VERSION"), ("revision", "REVISION"), ("created", "CREATED"), ("source", "SOURCE")]
    {
        let pair = format!("org.opencontainers.image.{label}=\"${{{argument}}}\"");
        ensure!(labels.contains(&pair), "no {pair} in {labels}");
        let position = |is_it: &dyn Fn(&(String, String)) -> bool| dockerfile.0.iter().rposition(is_it);
        let declared = position(&|(word, rest)| word == "ARG" && rest.starts_with(&format!("{argument}=")));
        ensure!(declared.is_some() && declared < position(&|(word, _)| word == "LABEL"), "{argument}");
        ensure!(declared > position(&|(word, _)| word == "FROM"), "{argument} does not reach the final stage");
    }
    Ok(())
}
