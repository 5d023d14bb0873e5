//! The built-in actions' signatures.
