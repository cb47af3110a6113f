//! How a command ends when it does not succeed.

use std::fmt;
use std::process::ExitCode;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// It was refused or it failed; exit code 1.
    Failed(String),
    /// The command line makes no sense; exit code 2.
    Usage(String),
}

impl Failure {
    /// A failure with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }

    /// Tells the reason on stderr and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Failed(reason) => {
                super::output::complain(&format!("error: {reason}"));
                ExitCode::from(1)
            }
            Self::Usage(reason) => {
                super::output::complain(&format!("error: {reason}\n\nFor more information, try '--help'."));
                ExitCode::from(2)
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) | Self::Usage(reason) => f.write_str(reason),
        }
    }
}
