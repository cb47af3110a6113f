//! Files that a command reads; `-` is stdin.

use std::path::Path;

use crate::cli::Failure;

/// What the file is called in messages, and its text.
pub fn read(path: &Path) -> Result<(String, String), Failure> {
    let (name, text) = if path.as_os_str() == "-" {
        ("stdin".to_owned(), std::io::read_to_string(std::io::stdin()))
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    let text = text.map_err(|error| Failure::new(format!("{name}: {error}")))?;
    Ok((name, text))
}
