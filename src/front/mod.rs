//! The agent's faces: HTTP for clients and programs, the command line for people.

pub mod cli;
pub mod http;
mod passing;
pub mod pkg;
