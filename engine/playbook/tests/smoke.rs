#[test]
fn smoke() {
    let text = include_str!("fixtures/compromised-host.yaml");
    match stanch_playbook::load("a.yaml", text) {
        Ok(loaded) => {
            println!("{}", loaded.plan.canonical());
            for w in &loaded.warnings {
                println!("{w}");
            }
        }
        Err(error) => panic!("{}", error.render(false)),
    }
}
