//! The `branchline` program: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;

use branchline::front::cli::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("branchline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
