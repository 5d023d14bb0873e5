//! One program for all stand-ins: it is the tool that it is called as.

use std::process::exit;

fn main() {
    exit(stanch_tests::commands::stand_in());
}
