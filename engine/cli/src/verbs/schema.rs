//! `stanch schema`: the JSON Schemas and the OpenAPI document that this version generates.

use std::path::Path;

use serde_json::Value;
use stanch_server::schema::text;

use crate::cli::Schema;
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::{self, inert, note};

/// Prints one, lists them, writes all of them, or compares all of them.
pub fn run(arguments: &Schema) -> Outcome {
    let schemas = stanch_server::schema::schemas();
    if let Some(directory) = &arguments.write {
        return write(directory, &schemas);
    }
    if let Some(directory) = &arguments.check {
        return check(directory, &schemas);
    }
    let Some(name) = &arguments.name else {
        let names: String = schemas.iter().map(|(file, _)| format!("{}\n", short(file))).collect();
        return terminal::print(&names).map(|()| Exit::Done);
    };
    match schemas.iter().find(|(file, _)| file == name || short(file) == name) {
        Some((_, schema)) => terminal::print(&text(schema)).map(|()| Exit::Done),
        None => {
            let names: Vec<&str> = schemas.iter().map(|(file, _)| short(file)).collect();
            Err(Failure::usage(format!("there is no schema {}", inert(name)))
                .help(format!("there are {}", names.join(", "))))
        }
    }
}

/// `playbook` of `playbook.schema.json`.
fn short(file: &str) -> &str {
    file.split('.').next().unwrap_or(file)
}

fn write(directory: &Path, schemas: &[(&'static str, Value)]) -> Outcome {
    let failed = |path: &Path, error| Failure::because(format!("{} cannot be written", path.display()), &error);
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    for (file, schema) in schemas {
        let path = directory.join(file);
        std::fs::write(&path, text(schema)).map_err(|error| failed(&path, error))?;
        note(&format!("wrote {}", path.display()));
    }
    Ok(Exit::Done)
}

fn check(directory: &Path, schemas: &[(&'static str, Value)]) -> Outcome {
    let drifted: Vec<String> = schemas
        .iter()
        .filter_map(|(file, schema)| {
            let path = directory.join(file);
            match std::fs::read_to_string(&path) {
                Ok(there) if there == text(schema) => None,
                Ok(_) => Some(format!("{} is out of date", path.display())),
                Err(error) => Some(format!("{} cannot be read: {error}", path.display())),
            }
        })
        .collect();
    if drifted.is_empty() {
        terminal::print(&format!("{} schemas in {} are up to date\n", schemas.len(), directory.display()))?;
        return Ok(Exit::Done);
    }
    let help = format!("make them again: stanch schema --write {}", directory.display());
    Err(Failure::new(drifted.join("; ")).help(help))
}
