//! The examples of a document: its code blocks that have a name (```` ```sh name=read-term ````).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The named code blocks of a file in `docs/`.
pub struct Document(BTreeMap<String, String>);

impl Document {
    pub fn read(file: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut blocks = BTreeMap::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(opening) = line.trim_start().strip_prefix("```") else { continue };
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            if let Some((_, name)) = opening.split_once("name=") {
                let before = blocks.insert(name.to_owned(), block.join("\n") + "\n");
                ensure!(before.is_none(), "{file} has two examples called {name}");
            }
        }
        Ok(Self(blocks))
    }

    /// An example, as it stands in the document.
    pub fn example(&self, name: &str) -> Result<&str> {
        Ok(self.0.get(name).with_context(|| format!("no example is called {name}"))?)
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}
