//! `gemini-operator signature verify`: judges a delivery that somebody kept, as the receiver would, without a cluster.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice};

use crate::api::duration::GoDuration;
use crate::receiver::limits;
use crate::receiver::signature::jwks::{self, Jwks};
use crate::receiver::signature::{Rejection, Scheme, dynamic_jwt, standard_v1, verify, x_goog};

/// A secret has some 50 bytes; what is far beyond that is another file.
const SECRET_FILE: usize = 64 * 1024;

#[derive(Debug, Subcommand)]
pub enum SignatureCommand {
    /// Judges a delivery as the receiver would: prints `accepted` (exit status 0) or `rejected: REASON` (1).
    ///
    /// A command line or a file that cannot be used ends with status 2. The reasons are those of the metric
    /// gemini_operator_receiver_rejections_total, and docs/rejected-deliveries.md explains them.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The `spec.signature` of the webhook; a delivery is never tried with another one.
    #[arg(long, value_enum, value_name = "SCHEME")]
    scheme: SchemeName,
    /// File with a secret (StandardWebhooks, XGoogSignature). Give it again for each secret that is good now.
    #[arg(long = "secret-file", value_name = "FILE")]
    secret_files: Vec<PathBuf>,
    /// File with the provider's public keys (DynamicV1a, DynamicJwt).
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// What the claim `aud` must be (DynamicJwt).
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// What the claim `iss` must be (DynamicJwt). Default: anything.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// When the delivery came, in Unix seconds. Default: now.
    #[arg(long, value_name = "UNIX", allow_negative_numbers = true)]
    now: Option<i64>,
    /// How far the clocks of sender and receiver may differ.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    tolerance: GoDuration,
    /// A header of the delivery as `name: value`. Give it again for each of them.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<OsString>,
    /// File with the body, byte for byte as it came.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
}

/// Signature scheme of a route, as the API spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum SchemeName {
    StandardWebhooks,
    #[value(name = "DynamicV1a")]
    DynamicV1a,
    DynamicJwt,
    XGoogSignature,
}

/// The answer, and what a person may want to know beside it.
#[derive(Debug)]
pub struct Judgement {
    pub rejected: Option<Rejection>,
    pub note: Option<String>,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rejected {
            None => f.write_str("accepted"),
            Some(reason) => write!(f, "rejected: {}", reason.as_str()),
        }
    }
}

impl From<Rejection> for Judgement {
    fn from(reason: Rejection) -> Self {
        Self { rejected: Some(reason), note: None }
    }
}

impl VerifyArgs {
    /// Judges the delivery. `Err` = the command line or a file cannot be used.
    pub fn judge(&self) -> Result<Judgement, String> {
        self.check_flags()?;
        let headers = self.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
        let secrets = self
            .secret_files
            .iter()
            .map(|file| Ok((file, secret(file)?)))
            .collect::<Result<Vec<_>, String>>()?;
        let jwks = self.jwks.as_deref().map(|file| read("--jwks", file, jwks::MAX_BYTES)).transpose()?;
        let Some(body) = read("--body", &self.body, limits::BODY_BYTES)? else {
            return Ok(Rejection::TooLarge.into());
        };
        let now = self.now.unwrap_or_else(|| Timestamp::now().as_second());
        let tolerance = i64::try_from(self.tolerance.0.as_secs()).unwrap_or(i64::MAX);

        let keys = match jwks.map(|document| document.ok_or(jwks::Error::TooLarge)).transpose() {
            Ok(document) => document.as_deref().map(Jwks::parse).transpose(),
            Err(error) => Err(error),
        };
        let keys = match keys {
            Ok(keys) => keys.unwrap_or_default(),
            // As in the receiver, which then has no keys of this document.
            Err(error) => return Ok(self.without_keys(error)),
        };
        let judge = |scheme: Scheme<'_>| match verify(scheme, headers.iter().copied(), &body, now, tolerance)
        {
            Ok(_) => Judgement { rejected: None, note: None },
            Err(reason) => reason.into(),
        };
        Ok(match self.scheme {
            SchemeName::StandardWebhooks => match parsed(&secrets, |bytes| {
                standard_v1::Key::parse(str::from_utf8(bytes).map_err(|_| Rejection::NoUsableKey)?)
            }) {
                Ok(keys) => judge(Scheme::StandardWebhooks(&keys)),
                Err(judgement) => judgement,
            },
            SchemeName::XGoogSignature => match parsed(&secrets, |bytes| x_goog::Key::parse(bytes, &[])) {
                Ok(keys) => judge(Scheme::XGoogSignature(&keys)),
                Err(judgement) => judgement,
            },
            SchemeName::DynamicV1a => judge(Scheme::DynamicV1a(&keys)),
            SchemeName::DynamicJwt => {
                let audience = self.audience.clone().unwrap_or_default();
                let expected = dynamic_jwt::Expected { audience, issuer: self.issuer.clone() };
                let mut judgement = judge(Scheme::DynamicJwt(&keys, &expected));
                if judgement.rejected == Some(Rejection::Aud) {
                    judgement.note = match dynamic_jwt::observed_audience(
                        headers.iter().copied(),
                        &keys,
                        now,
                        tolerance,
                    ) {
                        Some(observed) => Some(format!("the token's audience is {observed}")),
                        None => Some("the token has no audience".to_owned()),
                    };
                }
                judgement
            }
        })
    }

    /// Each scheme has its kind of keys; a flag without effect would be a mistake that nobody sees.
    fn check_flags(&self) -> Result<(), String> {
        let named = self.scheme.to_possible_value();
        let scheme = named.as_ref().map_or("", |value| value.get_name());
        let (secrets, jwks) = (!self.secret_files.is_empty(), self.jwks.is_some());
        let keys_are_public = matches!(self.scheme, SchemeName::DynamicV1a | SchemeName::DynamicJwt);
        let is_jwt = self.scheme == SchemeName::DynamicJwt;
        for (given, wanted, flag) in [
            (secrets, !keys_are_public, "--secret-file"),
            (jwks, keys_are_public, "--jwks"),
            (self.audience.is_some(), is_jwt, "--audience"),
        ] {
            if wanted && !given {
                return Err(format!("--scheme {scheme} needs {flag}"));
            }
            if given && !wanted {
                return Err(format!("--scheme {scheme} has no use for {flag}; leave it out"));
            }
        }
        if self.issuer.is_some() && !is_jwt {
            return Err(format!("--scheme {scheme} has no use for --issuer; leave it out"));
        }
        Ok(())
    }

    fn without_keys(&self, error: jwks::Error) -> Judgement {
        let file = self.jwks.as_deref().unwrap_or(Path::new("")).display();
        Judgement {
            rejected: Some(Rejection::NoUsableKey),
            note: Some(format!("--jwks {file} is refused as a whole: {error}")),
        }
    }
}

/// The keys of all secrets, or what one of them has against it.
fn parsed<K>(
    secrets: &[(&PathBuf, SecretSlice<u8>)],
    parse: impl Fn(&[u8]) -> Result<K, Rejection>,
) -> Result<Vec<K>, Judgement> {
    let key = |(file, secret): &(&PathBuf, SecretSlice<u8>)| {
        parse(secret.expose_secret()).map_err(|reason| Judgement {
            rejected: Some(reason),
            note: Some(format!("--secret-file {} is no key of this scheme", file.display())),
        })
    };
    secrets.iter().map(key).collect()
}

/// A header's name and value, which may be any bytes.
fn header(text: &OsStr) -> Result<(&str, &[u8]), String> {
    let bytes = text.as_encoded_bytes();
    let bad = || format!("--header {:?} is not of the form 'webhook-id: msg_1'", text.to_string_lossy());
    let colon = bytes.iter().position(|byte| *byte == b':').ok_or_else(bad)?;
    let (name, value) = bytes.split_at(colon);
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let name = str::from_utf8(name).ok().filter(|_| is_name).ok_or_else(bad)?;
    Ok((name, value.get(1..).unwrap_or_default()))
}

fn secret(file: &Path) -> Result<SecretSlice<u8>, String> {
    let bytes = read("--secret-file", file, SECRET_FILE)?;
    bytes.map(SecretSlice::from).ok_or_else(|| {
        format!("--secret-file {} is larger than {SECRET_FILE} bytes: that is no secret", file.display())
    })
}

/// A file's bytes; `None` = more than so many.
fn read(flag: &str, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let unusable = |error: std::io::Error| format!("{flag} {} cannot be read: {error}", path.display());
    let file = File::open(path).map_err(unusable)?;
    let mut bytes = vec![];
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(one_more).read_to_end(&mut bytes).map_err(unusable)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}
