//! Sealing: what the broker keeps is encrypted with AES-256-GCM, under a key of its own per message
//! that is derived from one of the installation's keys and a random salt (HKDF-SHA-256), so that the
//! number of messages under one key of the installation has no practical limit.
//!
//! A sealed text is a mark, the length and the text of the key's id, the salt, and what was sealed
//! with its tag. The place (subject, or bucket and key) and the id are authenticated: a text that is
//! moved or changed does not open.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use model::PipelineName;
use rand::Rng;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    hmac,
};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::Zeroizing;

use crate::ConfigError;

/// Neither protobuf nor JSON begins like this.
const MARK: &[u8; 4] = b"\0TS1";
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// What a sealed text begins with where only text may be.
const TEXT_MARK: &str = "sealed:";
const MAX_ID_BYTES: usize = 32;
/// How old the known keys may be before the folder is read again.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// The keys of an installation, as files of one folder. Cheap to clone.
///
/// The file's name is the key's id, the content 32 bytes in base64. The greatest id in alphabetical
/// order seals; all of them open. The folder is read again every few seconds, so keys are rotated by
/// adding a file.
#[derive(Clone)]
pub struct SealKeys {
    folder: Arc<PathBuf>,
    known: Arc<Mutex<Known>>,
}

type Key = SecretBox<[u8; KEY_BYTES]>;

struct Known {
    keys: BTreeMap<String, Arc<Key>>,
    read: Instant,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKeys").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A sealed text cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// This process does not have the key. It may arrive.
    #[error(
        "it is sealed with the key `{id}`, which this service does not have; add that file to the \
         folder of `seal_keys`"
    )]
    NoKey {
        /// Id of the key.
        id: String,
    },
    /// It was changed, moved from another place, or sealed with another key of the same id.
    #[error("it does not open: it was changed or sealed for another place or with another key")]
    Damaged,
}

impl SealKeys {
    /// Reads the keys of a folder. Files whose names begin with a dot are left out.
    ///
    /// # Errors
    ///
    /// When the folder or a file cannot be read, a file is no key or its name no id, or there is
    /// none. Never holds a key.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        let known = Known { keys: keys_of(folder)?, read: Instant::now() };
        Ok(Self { folder: Arc::new(folder.to_owned()), known: Arc::new(Mutex::new(known)) })
    }

    /// Makes the folder with a first key in it, unless it is there. Only the owner can read it.
    ///
    /// # Errors
    ///
    /// When the folder or the file cannot be written.
    pub fn create(folder: &Path) -> std::io::Result<()> {
        if folder.exists() {
            return Ok(());
        }
        // A folder that is there is complete, so that a key is never overwritten.
        let fresh = folder.with_extension("new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)?;
        }
        DirBuilder::new().mode(0o700).create(&fresh)?;
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        rand::rng().fill(key.as_mut_slice());
        let text = Zeroizing::new(STANDARD.encode(*key));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh.join("1"))?;
        writeln!(file, "{}", *text)?;
        file.sync_all()?;
        std::fs::rename(fresh, folder)
    }

    /// Returns the ids of the keys, in alphabetical order; the last one seals.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.fresh(KNOWN_FOR).keys.keys().cloned().collect()
    }

    /// Seals a text for a place.
    #[must_use]
    pub fn seal(&self, place: &str, text: &[u8]) -> Bytes {
        let (id, key) = self.newest();
        seal_with(&id, &key, &rand::rng().random(), place, text).into()
    }

    /// Seals a text for a place as text. The same text is always sealed to the same one, as long as
    /// no key is added, so whoever compares can tell that two are equal, and nothing else.
    #[must_use]
    pub fn seal_text(&self, place: &str, text: &str) -> String {
        let (id, key) = self.newest();
        let mut salt = [0; SALT_BYTES];
        // The length keeps place and text apart.
        let said = [place.len().to_string().as_bytes(), place.as_bytes(), text.as_bytes()].concat();
        salt.copy_from_slice(&keyed_hash(&key, &said)[..SALT_BYTES]);
        format!(
            "{TEXT_MARK}{}",
            URL_SAFE_NO_PAD.encode(seal_with(&id, &key, &salt, place, text.as_bytes()))
        )
    }

    /// Opens what [`SealKeys::seal_text`] has sealed; another text is returned as it is.
    ///
    /// # Errors
    ///
    /// As [`SealKeys::open`].
    pub fn open_text(&self, place: &str, sealed: &str) -> Result<String, OpenError> {
        let Some(bytes) = sealed_text(sealed) else { return Ok(sealed.to_owned()) };
        let bytes = bytes?;
        // Such a text holds nothing that was written before there were keys.
        Parts::of(&bytes).ok_or(OpenError::Damaged)??;
        let text = self.open(place, bytes.into())?;
        String::from_utf8(text.into()).map_err(|_| OpenError::Damaged)
    }

    fn newest(&self) -> (String, Arc<Key>) {
        let known = self.fresh(KNOWN_FOR);
        let (id, key) = known.keys.last_key_value().expect("there is always a key");
        (id.clone(), Arc::clone(key))
    }

    /// Opens what was sealed for a place. What is not sealed is returned as it is: it was written
    /// before there were keys.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoKey`] may pass by itself; [`OpenError::Damaged`] does not.
    pub fn open(&self, place: &str, sealed: Bytes) -> Result<Bytes, OpenError> {
        let Some(parts) = Parts::of(&sealed) else { return Ok(sealed) };
        let parts = parts?;
        let key = self.key(parts.id)?;
        let mut text = parts.sealed.to_vec();
        let opened = message_key(&key, parts.salt)
            .open_in_place(nonce(), Aad::from(bound(place, parts.id)), &mut text)
            .map_err(|_| OpenError::Damaged)?
            .len();
        text.truncate(opened);
        Ok(text.into())
    }

    /// Seals what was sealed for a place with an older key, or not at all, with the newest one;
    /// `None`: it is sealed with that one already.
    ///
    /// # Errors
    ///
    /// As [`SealKeys::open`].
    pub fn renew(&self, place: &str, kept: &Bytes) -> Result<Option<Bytes>, OpenError> {
        if self.is_newest(kept) {
            return Ok(None);
        }
        Ok(Some(self.seal(place, &self.open(place, kept.clone())?)))
    }

    /// Seals what [`SealKeys::seal_text`] has sealed for a place with an older key with the newest
    /// one; `None`: it is sealed with that one already, or not sealed.
    ///
    /// # Errors
    ///
    /// As [`SealKeys::open`].
    pub fn renew_text(&self, place: &str, kept: &str) -> Result<Option<String>, OpenError> {
        match sealed_text(kept).transpose()? {
            Some(bytes) if !self.is_newest(&bytes) => {
                Ok(Some(self.seal_text(place, &self.open_text(place, kept)?)))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn is_newest(&self, sealed: &[u8]) -> bool {
        matches!(Parts::of(sealed), Some(Ok(parts)) if parts.id == self.newest().0)
    }

    /// Returns what stands for a text that nobody may read: always the same as long as the first
    /// key stays, and telling nothing to whoever does not have it. 32 hexadecimal digits.
    #[must_use]
    pub fn stand_in(&self, text: &str) -> String {
        let key = {
            let known = self.fresh(KNOWN_FOR);
            Arc::clone(known.keys.first_key_value().expect("there is always a key").1)
        };
        keyed_hash(&key, text.as_bytes())[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key(&self, id: &str) -> Result<Arc<Key>, OpenError> {
        for age in [KNOWN_FOR, Duration::from_secs(1)] {
            if let Some(key) = self.fresh(age).keys.get(id) {
                return Ok(Arc::clone(key));
            }
        }
        Err(OpenError::NoKey { id: id.to_owned() })
    }

    /// Returns keys that were read at most so long ago.
    fn fresh(&self, age: Duration) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read.elapsed() > age {
            known.read = Instant::now();
            match keys_of(&self.folder) {
                Ok(keys) => known.keys = keys,
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the folder of `seal_keys` cannot be read again, the keys known before stay"
                ),
            }
        }
        known
    }
}

/// What the cursors of a pipeline are sealed for.
#[must_use]
pub fn cursor_place(pipeline: &PipelineName) -> String {
    format!("cursor/{pipeline}")
}

/// Returns the id of the key that a text is sealed with, whether it is a text of
/// [`SealKeys::seal`] or of [`SealKeys::seal_text`]; `None`: it is not sealed, or damaged.
#[must_use]
pub fn sealed_with(kept: &[u8]) -> Option<String> {
    let bytes = match std::str::from_utf8(kept).ok().and_then(sealed_text) {
        Some(bytes) => bytes.ok()?,
        None => kept.to_vec(),
    };
    Some(Parts::of(&bytes)?.ok()?.id.to_owned())
}

/// Returns the bytes of what [`SealKeys::seal_text`] has made; `None`: it has not made it.
fn sealed_text(text: &str) -> Option<Result<Vec<u8>, OpenError>> {
    let encoded = text.strip_prefix(TEXT_MARK)?;
    Some(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| OpenError::Damaged))
}

/// Returns a text that is not sealed.
pub(crate) fn open_without_keys(text: Bytes) -> Result<Bytes, OpenError> {
    match Parts::of(&text) {
        None => Ok(text),
        Some(parts) => Err(OpenError::NoKey { id: parts?.id.to_owned() }),
    }
}

/// Returns a text that is not sealed.
pub(crate) fn open_text_without_keys(text: &str) -> Result<String, OpenError> {
    match sealed_text(text) {
        None => Ok(text.to_owned()),
        Some(bytes) => Err(match sealed_with(&bytes?) {
            Some(id) => OpenError::NoKey { id },
            None => OpenError::Damaged,
        }),
    }
}

fn seal_with(id: &str, key: &Key, salt: &[u8; SALT_BYTES], place: &str, text: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(
        MARK.len() + 1 + id.len() + SALT_BYTES + text.len() + AES_256_GCM.tag_len(),
    );
    sealed.extend_from_slice(MARK);
    sealed.push(u8::try_from(id.len()).expect("ids are short"));
    sealed.extend_from_slice(id.as_bytes());
    sealed.extend_from_slice(salt);
    let head = sealed.len();
    sealed.extend_from_slice(text);
    let tag = message_key(key, salt)
        .seal_in_place_separate_tag(nonce(), Aad::from(bound(place, id)), &mut sealed[head..])
        .expect("a message is far below the limit of the cipher");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

struct Parts<'a> {
    id: &'a str,
    salt: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes a sealed text apart; `None`: it is not sealed.
    fn of(text: &'a [u8]) -> Option<Result<Self, OpenError>> {
        let rest = text.strip_prefix(MARK)?;
        let parts = || {
            let (length, rest) = rest.split_first()?;
            let (id, rest) = rest.split_at_checked((*length).into())?;
            let (salt, sealed) = rest.split_at_checked(SALT_BYTES)?;
            Some(Self { id: std::str::from_utf8(id).ok()?, salt, sealed })
        };
        Some(parts().ok_or(OpenError::Damaged))
    }
}

fn message_key(key: &Key, salt: &[u8]) -> LessSafeKey {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(key.expose_secret());
    let derived = extracted
        .expand(&[b"tributary message"], &AES_256_GCM)
        .expect("a key of 32 bytes can be derived");
    LessSafeKey::new(UnboundKey::from(derived))
}

/// Hashes with a key that is derived for that alone.
fn keyed_hash(key: &Key, text: &[u8]) -> [u8; 32] {
    let prk = Salt::new(HKDF_SHA256, b"tributary names").extract(key.expose_secret());
    let derived =
        prk.expand(&[b"hash"], hmac::HMAC_SHA256).expect("a key of 32 bytes can be derived");
    let tag = hmac::sign(&hmac::Key::from(derived), text);
    tag.as_ref().try_into().expect("a hash of SHA-256 has 32 bytes")
}

/// Each key seals one text only.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn bound(place: &str, id: &str) -> Vec<u8> {
    [id.as_bytes(), b"\0", place.as_bytes()].concat()
}

fn keys_of(folder: &Path) -> Result<BTreeMap<String, Arc<Key>>, ConfigError> {
    let unreadable = |error| ConfigError::SealKeys { folder: folder.to_owned(), error };
    let mut keys = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Kubernetes mounts hold `..data` beside the files.
        if name.starts_with('.') {
            continue;
        }
        let is_id = name.len() <= MAX_ID_BYTES
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let text = std::fs::read_to_string(entry.path()).map(SecretString::from);
        let text = text.map_err(unreadable)?;
        let key = decode(text.expose_secret().trim());
        let Some(key) = key.filter(|_| is_id) else {
            return Err(ConfigError::SealKey { file: entry.path() });
        };
        keys.insert(name, Arc::new(key));
    }
    if keys.is_empty() {
        return Err(ConfigError::NoSealKeys { folder: folder.to_owned() });
    }
    Ok(keys)
}

fn decode(text: &str) -> Option<Key> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().ok()?;
    Some(SecretBox::new(Box::new(key)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn folder(keys: &[(&str, u8)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (id, byte) in keys {
            add(&folder, id, *byte);
        }
        folder
    }

    fn add(folder: &TempDir, id: &str, byte: u8) {
        fs::write(folder.path().join(id), format!("{}\n", STANDARD.encode([byte; 32]))).unwrap();
    }

    /// Has the folder read again at the next use.
    fn age(keys: &SealKeys) {
        keys.known.lock().unwrap().read = Instant::now() - Duration::from_secs(60);
    }

    #[test]
    fn what_is_sealed_opens_at_its_place_alone() {
        let folder = folder(&[("2026-11", 7)]);
        let keys = SealKeys::read(folder.path()).unwrap();
        for text in [&b""[..], b"ada@example.com", &[0; 100_000]] {
            let sealed = keys.seal("raw.shop", text);
            assert!(matches!(open_without_keys(sealed.clone()), Err(OpenError::NoKey { .. })));
            assert!(text.is_empty() || !sealed.windows(text.len()).any(|window| window == text));
            assert_eq!(keys.open("raw.shop", sealed.clone()).unwrap(), text);
            assert_eq!(keys.open("raw.crm", sealed), Err(OpenError::Damaged));
        }
        assert_ne!(keys.seal("raw.shop", b"ada"), keys.seal("raw.shop", b"ada"));
    }

    #[test]
    fn a_changed_text_does_not_open() {
        let folder = folder(&[("a", 7)]);
        let keys = SealKeys::read(folder.path()).unwrap();
        let sealed = keys.seal("raw.shop", b"ada@example.com");
        for index in MARK.len()..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[index] ^= 1;
            keys.open("raw.shop", changed.into()).unwrap_err();
        }
        for length in MARK.len()..sealed.len() {
            assert_eq!(keys.open("raw.shop", sealed.slice(..length)), Err(OpenError::Damaged));
        }
        let other = self::folder(&[("a", 8)]);
        let other = SealKeys::read(other.path()).unwrap();
        assert_eq!(other.open("raw.shop", sealed), Err(OpenError::Damaged));
    }

    #[test]
    fn what_was_written_without_keys_is_read_as_it_is() {
        let folder = folder(&[("a", 7)]);
        let keys = SealKeys::read(folder.path()).unwrap();
        for text in [&b""[..], b"{}", b"\x0a\x04shop", b"\0TS"] {
            assert_eq!(keys.open("raw.shop", Bytes::from_static(text)).unwrap(), text);
        }
    }

    #[test]
    fn keys_are_rotated_by_adding_and_removing_files() {
        let folder = folder(&[("2026-10", 1)]);
        let (writer, reader) =
            (SealKeys::read(folder.path()).unwrap(), SealKeys::read(folder.path()).unwrap());
        let old = writer.seal("raw.shop", b"old");
        let name = writer.stand_in("ada");
        add(&folder, "2026-11", 2);
        age(&writer);
        let new = writer.seal("raw.shop", b"new");
        assert_eq!(writer.stand_in("ada"), name, "a new key changes no name");
        age(&reader);
        assert_eq!(reader.open("raw.shop", old.clone()).unwrap(), "old");
        assert_eq!(reader.open("raw.shop", new.clone()).unwrap(), "new");
        fs::remove_file(folder.path().join("2026-10")).unwrap();
        age(&reader);
        assert_eq!(reader.open("raw.shop", new).unwrap(), "new");
        let refused = reader.open("raw.shop", old).unwrap_err();
        assert_eq!(refused, OpenError::NoKey { id: "2026-10".to_owned() });
        assert!(refused.to_string().contains("seal_keys"));
    }

    #[test]
    fn texts_are_sealed_to_equal_texts() {
        let folder = folder(&[("a", 7)]);
        let keys = SealKeys::read(folder.path()).unwrap();
        let sealed = keys.seal_text("cursor/shop", "ada@example.com");
        assert_eq!(sealed, keys.seal_text("cursor/shop", "ada@example.com"));
        assert_ne!(sealed, keys.seal_text("cursor/shop", "bob@example.com"));
        assert_eq!(keys.open_text("cursor/shop", &sealed).unwrap(), "ada@example.com");
        assert_eq!(keys.open_text("cursor/crm", &sealed), Err(OpenError::Damaged));
        assert_eq!(keys.open_text("cursor/shop", "17").unwrap(), "17");
        for damaged in ["sealed:?", "sealed:", "sealed:YWRh"] {
            assert_eq!(keys.open_text("cursor/shop", damaged), Err(OpenError::Damaged));
        }
        add(&folder, "b", 8);
        age(&keys);
        assert_ne!(sealed, keys.seal_text("cursor/shop", "ada@example.com"));
        assert_eq!(keys.open_text("cursor/shop", &sealed).unwrap(), "ada@example.com");
    }

    #[test]
    fn what_an_older_key_has_sealed_is_sealed_anew() {
        let folder = folder(&[("a", 7)]);
        let keys = SealKeys::read(folder.path()).unwrap();
        let (plain, old) = (Bytes::from_static(b"ada"), keys.seal("sent/shop", b"ada"));
        let old_text = keys.seal_text("cursor/shop", "ada");
        assert_eq!(keys.renew("sent/shop", &old), Ok(None));
        assert_eq!(keys.renew_text("cursor/shop", &old_text), Ok(None));
        assert_eq!(sealed_with(&keys.renew("sent/shop", &plain).unwrap().unwrap()).unwrap(), "a");
        add(&folder, "b", 8);
        age(&keys);
        assert_eq!((sealed_with(&old).unwrap(), sealed_with(&plain)), ("a".to_owned(), None));
        let new = keys.renew("sent/shop", &old).unwrap().unwrap();
        let new_text = keys.renew_text("cursor/shop", &old_text).unwrap().unwrap();
        assert_eq!(keys.renew_text("cursor/shop", "17"), Ok(None));
        assert_eq!(keys.renew_text("cursor/shop", "sealed:?"), Err(OpenError::Damaged));
        assert_eq!(keys.renew("sent/crm", &old), Err(OpenError::Damaged));
        fs::remove_file(folder.path().join("a")).unwrap();
        age(&keys);
        assert_eq!(keys.open("sent/shop", new).unwrap(), plain);
        assert_eq!(keys.open_text("cursor/shop", &new_text).unwrap(), "ada");
        assert_eq!(sealed_with(new_text.as_bytes()).unwrap(), "b");
        let missing = OpenError::NoKey { id: "a".to_owned() };
        assert_eq!(keys.renew("sent/shop", &old), Err(missing));
    }

    #[test]
    fn a_first_key_is_made_once_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("seal_keys");
        SealKeys::create(&folder).unwrap();
        let key = fs::read_to_string(folder.join("1")).unwrap();
        SealKeys::create(&folder).unwrap();
        assert_eq!(fs::read_to_string(folder.join("1")).unwrap(), key);
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.clone()), mode(folder.join("1"))), (0o700, 0o600));
        assert_eq!(SealKeys::read(&folder).unwrap().ids(), ["1"]);
    }

    #[test]
    fn a_folder_that_is_no_folder_of_keys_is_refused_without_telling_the_key() {
        let refused = |folder: &TempDir| SealKeys::read(folder.path()).unwrap_err().to_string();
        assert!(refused(&folder(&[])).contains("openssl rand -base64 32"));
        let short = folder(&[]);
        fs::write(short.path().join("a"), STANDARD.encode([7; 16])).unwrap();
        let told = refused(&short);
        assert!(told.contains("/a`") && !told.contains(&STANDARD.encode([7; 16])), "{told}");
        assert!(refused(&folder(&[("a key", 1)])).contains("/a key`"));
        let gone = folder(&[]).path().join("gone");
        assert!(SealKeys::read(&gone).unwrap_err().to_string().contains("gone"));
        let hidden = folder(&[("a", 1)]);
        fs::write(hidden.path().join("..data"), "no key").unwrap();
        assert_eq!(SealKeys::read(hidden.path()).unwrap().ids(), ["a"]);
    }
}
