//! Whole agents, as processes on this machine's loopback interface: each feature as its users meet it.
//!
//! One binary, because each further one links the whole program again.

mod support;

mod apt;
mod bad_input;
mod browser;
mod cargo;
mod channels;
mod clock;
mod crash;
mod dashboard;
mod disk;
mod doctor;
mod housekeeping;
mod hub;
mod keeping;
mod login;
mod media;
mod metrics;
mod no_origin;
mod npm;
mod oci;
mod offline;
mod prometheus;
mod public;
mod pypi;
mod recipes;
mod report;
mod setup;
mod site;
mod upstream;
mod windows;
