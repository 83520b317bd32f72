use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::errors::{Error, Result};

type Answer = Pin<Box<dyn Future<Output = std::result::Result<String, &'static str>> + Send>>;

/// Source of the credential of calls, such as of a JWT that expires.
///
/// It is asked for each call, also for each reconnect of a stream, and once more after the server has refused what it
/// returned: keep there what is expensive to obtain. An error counts as a cut connection; its text is not shown, because
/// it may hold secrets.
#[derive(Clone)]
pub struct Token(Arc<dyn Fn() -> Answer + Send + Sync>);

impl Token {
    /// Return a source that calls a function.
    ///
    /// ```
    /// let token = lavant::Token::new(|| tokio::fs::read_to_string("/run/secrets/lavant"));
    /// ```
    pub fn new<F, Fut, E>(source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<String, E>> + Send + 'static,
    {
        Self(Arc::new(move || {
            let answer = source();
            Box::pin(async move { answer.await.map_err(|_| type_name::<E>()) })
        }))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Credential of each call: none, a fixed key, or what a source returns.
pub(crate) enum Credential {
    None,
    Key(MetadataValue<Ascii>),
    Token(Token),
}

impl Credential {
    pub(crate) fn new(key: Option<String>, token: Option<Token>, is_private: bool, targets: &[String]) -> Result<Self> {
        if key.is_some() && token.is_some() {
            return Err(Error::Invalid("a call has one credential: set api_key or token".into()));
        }
        let exposed = targets.iter().find(|target| !is_private && !is_loopback(target));
        if let (true, Some(target)) = (key.is_some() || token.is_some(), exposed) {
            let text = format!("the credential would be sent to {target} in plain text: set tls, or insecure");
            return Err(Error::Invalid(text));
        }
        match (key, token) {
            (Some(key), _) => match header(&key) {
                Some(value) => Ok(Self::Key(value)),
                None => Err(Error::Invalid("api_key is not printable ASCII text without spaces".into())),
            },
            (None, Some(token)) => Ok(Self::Token(token)),
            (None, None) => Ok(Self::None),
        }
    }

    /// Whether another credential may be obtained after the server has refused one.
    pub(crate) fn can_renew(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    /// Return a request of a call with the credential.
    pub(crate) async fn authorize<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let value = match self {
            Self::None => return Ok(request),
            Self::Key(value) => value.clone(),
            Self::Token(Token(source)) => {
                let answer = source().await.map_err(|kind| Error::cut(format!("the token's source failed with a {kind}")))?;
                header(answer.trim_end())
                    .ok_or_else(|| Error::cut("the token's source returned no printable ASCII text without spaces"))?
            }
        };
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

fn header(credential: &str) -> Option<MetadataValue<Ascii>> {
    let is_sound = !credential.is_empty() && credential.bytes().all(|byte| byte.is_ascii_graphic());
    let mut value: MetadataValue<Ascii> = is_sound.then(|| format!("Bearer {credential}").parse().ok()).flatten()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether a target is this machine.
fn is_loopback(target: &str) -> bool {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    target.starts_with("unix:") || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
