//! What actions do to the world.

use serde_json::Value;

/// Whether an action with these parameters does something to the world, other than to tell people.
///
/// Not the same as whether repeating it is harmless: isolating a host twice is, isolating it is not.
#[must_use]
pub fn acts(action: &str, with: &Value) -> bool {
    match action {
        "log" | "slack" | "wait" | "approval" | "report" => false,
        "http" => !matches!(with["method"].as_str().unwrap_or("GET"), "GET" | "HEAD" | "OPTIONS"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reading_and_telling_do_nothing_to_the_world() {
        for (action, with, expected) in [
            ("http", json!({}), false),
            ("http", json!({"method": "HEAD"}), false),
            ("http", json!({"method": "PUT"}), true),
            ("exec", json!({}), true),
            ("nats.publish", json!({}), true),
            ("slack", json!({}), false),
            ("wait", json!({}), false),
        ] {
            assert_eq!(acts(action, &with), expected, "{action} {with}");
        }
    }
}
