//! Whether a program needs a dynamic linker or libraries: what `readelf -ld` would say.

use anyhow::{Context as _, Result, ensure};

/// What a program asks of the system it starts on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// A dynamic linker, by its path.
    pub interpreter: Option<String>,
    /// How many shared libraries.
    pub libraries: usize,
}

const SEGMENT_DYNAMIC: u64 = 2;
const SEGMENT_INTERPRETER: u64 = 3;
const ENTRY_NEEDED: u64 = 1;
const DYNAMIC_ENTRY_BYTES: usize = 16;

impl Needs {
    /// Of a 64-bit little-endian ELF file, which both of our architectures have.
    pub fn of(file: &[u8]) -> Result<Self> {
        ensure!(file.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
        let table = number(file, 32, 8)?;
        let (size, count) = (number(file, 54, 2)?, number(file, 56, 2)?);
        ensure!(count > 0, "no program headers");
        let mut needs = Self::default();
        for index in 0..count {
            let header = usize::try_from(table + index * size)?;
            let begin = usize::try_from(number(file, header + 8, 8)?)?;
            let length = usize::try_from(number(file, header + 32, 8)?)?;
            let segment = file.get(begin..begin + length).context("a segment ends within the file")?;
            match number(file, header, 4)? {
                SEGMENT_INTERPRETER => {
                    let path = String::from_utf8_lossy(segment);
                    needs.interpreter = Some(path.trim_end_matches('\0').to_owned());
                }
                SEGMENT_DYNAMIC => {
                    for entry in segment.chunks_exact(DYNAMIC_ENTRY_BYTES) {
                        needs.libraries += usize::from(number(entry, 0, 8)? == ENTRY_NEEDED);
                    }
                }
                _ => {}
            }
        }
        Ok(needs)
    }
}

fn number(bytes: &[u8], offset: usize, length: usize) -> Result<u64> {
    let field = bytes.get(offset..offset + length).context("a field within the file")?;
    Ok(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
