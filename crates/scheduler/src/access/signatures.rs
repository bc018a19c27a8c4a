//! Signatures of tokens, checked by the cryptography that TLS uses already.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, Result},
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use signature::Verifier;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| refuse_to_sign(),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Has tokens checked by this module, for the whole process.
pub(super) fn install() {
    // Somebody of the same process has done it before.
    PROVIDER.install_default().ok();
}

fn refuse_to_sign() -> Result<Box<dyn JwtSigner>> {
    Err(Error::from(ErrorKind::UnsupportedAlgorithm))
}

/// A key with what it is to check.
struct Key {
    algorithm: Algorithm,
    bytes: Bytes,
}

enum Bytes {
    Rsa { parameters: &'static RsaParameters, n: Vec<u8>, e: Vec<u8> },
    Other { kind: &'static dyn VerificationAlgorithm, key: Vec<u8> },
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
    let wrong = || Error::from(ErrorKind::InvalidAlgorithm);
    if key.family() != algorithm.family() {
        return Err(wrong());
    }
    let rsa = |parameters| match key.kind() {
        RsaModulusExponent { n, e } => Ok(Bytes::Rsa { parameters, n: n.clone(), e: e.clone() }),
        SecretOrDer(_) => Err(wrong()),
    };
    let other = |kind| Ok(Bytes::Other { kind, key: key.try_get_as_bytes()?.to_vec() });
    let bytes = match algorithm {
        Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => rsa(&RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => other(&ECDSA_P256_SHA256_FIXED as &dyn VerificationAlgorithm),
        Algorithm::ES384 => other(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => other(&ED25519),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 | _ => Err(wrong()),
    };
    Ok(Box::new(Key { algorithm: *algorithm, bytes: bytes? }))
}

impl Verifier<Vec<u8>> for Key {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let verified = match &self.bytes {
            Bytes::Rsa { parameters, n, e } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Bytes::Other { kind, key } => {
                UnparsedPublicKey::new(*kind, key).verify(message, signature)
            }
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Key {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
