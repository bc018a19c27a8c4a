//! The data folder of `tributary up`: one process at a time, readable by its owner alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// Files that tell an address.
const FILES: [&str; 3] = ["webhooks", "ingest", "address"];

/// Where everything is, as `http://host:port`.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    /// The gRPC API.
    pub(super) control: String,
    /// Webhooks, under `/hooks/<pipeline>`.
    pub(super) webhooks: String,
    /// gRPC ingest.
    pub(super) ingest: String,
}

/// The folder, locked until this is dropped or the process dies.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let fail = |error: io::Error| {
            let what = format!("the data folder {} cannot be used", path.display());
            Failure::new(what, error, "check the rights, or name another one with --data")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
        let path = path.canonicalize().map_err(fail)?;
        let lock = lock(&path).map_err(fail)??;
        let folder = Self { path, _lock: lock };
        // A process that was killed leaves its address behind.
        folder.forget_addresses();
        Ok(folder)
    }

    /// Returns the absolute path of a file or folder inside.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Tells clients where everything is. The address of the gRPC API comes last: who sees it finds
    /// the others.
    pub(super) fn write_addresses(&self, addresses: &Addresses) -> io::Result<()> {
        for (name, address) in [
            (FILES[0], &addresses.webhooks),
            (FILES[1], &addresses.ingest),
            (FILES[2], &addresses.control),
        ] {
            let fresh = self.path(&format!("{name}.new"));
            fs::write(&fresh, address)?;
            fs::rename(fresh, self.path(name))?;
        }
        Ok(())
    }

    /// Clients no longer find an address here.
    pub(super) fn forget_addresses(&self) {
        for name in FILES {
            if let Err(error) = fs::remove_file(self.path(name))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "the file `{name}` cannot be removed");
            }
        }
    }
}

fn lock(folder: &Path) -> io::Result<Result<File, Failure>> {
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            let what = format!("the data folder {} is in use", folder.display());
            let detail = format!("another `tributary up` works there: process {holder}");
            let hint = "stop that one first, or name another folder with --data";
            Ok(Err(Failure::new(what, detail, hint)))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread::sleep,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_folder_serves_one_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = Folder::open(&path).unwrap();
        let url = "http://127.0.0.1:1".to_owned();
        let addresses = Addresses { control: url.clone(), webhooks: url.clone(), ingest: url };
        first.write_addresses(&addresses).unwrap();
        let Err(Failure::Told(told)) = Folder::open(&path) else {
            panic!("the folder was locked twice");
        };
        assert!(told.to_string().contains(&format!("process {}", std::process::id())));
        assert!(first.path("address").exists(), "the second one has touched the first one's files");
        drop(first);
        // What another test has just forked holds the lock as well, until it runs its own program.
        let deadline = Instant::now() + Duration::from_secs(10);
        let second = loop {
            match Folder::open(&path) {
                Ok(second) => break second,
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                Err(error) => panic!("the lock is still held: {error:?}"),
            }
        };
        assert!(!second.path("address").exists());
    }
}
