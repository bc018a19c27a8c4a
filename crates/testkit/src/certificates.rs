//! Certificates of an authority of the test's own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// An authority, and what it has signed, in one folder that ends with this.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes an authority, `ca.pem` in its folder.
    ///
    /// # Panics
    ///
    /// When `openssl` is not installed.
    #[must_use]
    pub fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().expect("a temporary directory") };
        let request = format!("req -x509 {KEY} -keyout ca.key -out ca.pem -subj /CN=ca -days 2");
        authority.openssl(&request);
        authority
    }

    /// Signs a certificate for 127.0.0.1: `NAME.pem` and `NAME.key` in the folder.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn issue(&self, name: &str) {
        let extensions = self.path("extensions");
        std::fs::write(extensions, "subjectAltName=IP:127.0.0.1").expect("the folder is ours");
        let subject = format!("-subj /CN={name}");
        self.openssl(&format!("req {KEY} -keyout {name}.key -out {name}.csr {subject}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem \
             -days 2 -extfile extensions"
        ));
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let status = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.folder())
            .stderr(Stdio::null())
            .status()
            .expect("openssl is installed");
        assert!(status.success(), "openssl {arguments}");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
