//! Users of the broker with the least they need.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, anyhow};
use bus::{LoginKey, Names, Service};
use secrecy::ExposeSecret;

use crate::{cli::BrokerUsers, failure::Failure};

pub(crate) fn run(options: &BrokerUsers) -> Result<(), Failure> {
    let names = Names::new(&options.prefix).map_err(anyhow::Error::from)?;
    fs::create_dir_all(&options.keys)
        .with_context(|| format!("the folder {} cannot be made", options.keys.display()))?;
    let users = Service::ALL
        .into_iter()
        .map(|service| {
            let file = options.keys.join(format!("{}.nk", service.name()));
            Ok((service, key_in(&file)?.public))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let text = bus::authorization(&names, &users);
    io::stdout().write_all(text.as_bytes()).context("the users cannot be printed")?;
    Ok(())
}

/// Reads the key of a file, or makes one that only its owner can read.
fn key_in(file: &Path) -> anyhow::Result<LoginKey> {
    let shown = file.display();
    match fs::read_to_string(file) {
        Ok(text) => LoginKey::from_seed(text.into()).ok_or_else(|| {
            anyhow!("{shown} holds no seed of a user; remove it to have a new key made")
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = LoginKey::random();
            let mut new = OpenOptions::new();
            let opened = new.write(true).create_new(true).mode(0o600).open(file);
            opened
                .and_then(|mut file| {
                    file.write_all(key.seed.expose_secret().as_bytes())?;
                    file.sync_all()
                })
                .with_context(|| format!("{shown} cannot be written"))?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("{shown} cannot be read")),
    }
}
