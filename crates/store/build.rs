//! Builds again when a migration was added, which the macro that embeds them cannot see.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
