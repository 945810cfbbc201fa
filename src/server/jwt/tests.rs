//! Tokens that must be refused, and key sets that come, change, break and stay away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RsaEncoding,
    RsaKeyPair, RsaPublicKeyComponents,
};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::settings::JwtKeys;

const PATIENCE: Duration = Duration::from_secs(30);
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "llm-config";

/// A key of the issuer, with everything that is needed to sign by hand: also what no library would sign.
struct Signer {
    kid: Option<&'static str>,
    secret: Secret,
}

enum Secret {
    Ec(&'static str, EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    fn p256(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: Some(kid), secret: Secret::Ec("P-256", pair) }
    }

    fn p384(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self { kid: Some(kid), secret: Secret::Ec("P-384", pair) }
    }

    fn ed25519(kid: &'static str) -> Self {
        Self { kid: Some(kid), secret: Secret::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    fn rsa(kid: &'static str) -> Self {
        Self {
            kid: Some(kid),
            secret: Secret::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        }
    }

    fn nameless(mut self) -> Self {
        self.kid = None;
        self
    }

    fn algorithm(&self) -> &'static str {
        match &self.secret {
            Secret::Ec("P-384", _) => "ES384",
            Secret::Ec(..) => "ES256",
            Secret::Ed(_) => "EdDSA",
            Secret::Rsa(_) => "RS256",
        }
    }

    fn public(&self) -> Vec<u8> {
        match &self.secret {
            Secret::Ec(_, pair) => pair.public_key().as_ref().to_vec(),
            Secret::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Secret::Rsa(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn jwk(&self) -> Value {
        let public = self.public();
        let mut jwk = match &self.secret {
            Secret::Ec(curve, _) => {
                let (x, y) = public[1..].split_at(public.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Secret::Ed(_) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&public)}),
            Secret::Rsa(pair) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)})
            }
        };
        if let Some(kid) = self.kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Secret::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    fn header(&self) -> Value {
        let mut header = json!({"typ": "JWT", "alg": self.algorithm()});
        if let Some(kid) = self.kid {
            header["kid"] = json!(kid);
        }
        header
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signature = self.signature(algorithm, message.as_bytes());
        format!("{message}.{}", encode(&signature))
    }

    fn good_token(&self) -> String {
        self.token(&self.header(), &claims())
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": [AUDIENCE, "others"], "sub": "ann", "exp": now_s() + 600,
        "nbf": now_s() - 1, "roles": ["editor"],
    })
}

fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn set(keys: &[&Signer]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

fn settings(keys: JwtKeys) -> JwtSettings {
    JwtSettings {
        keys,
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        roles_claim: "roles".to_owned(),
    }
}

/// Reads nothing by itself.
const STILL: Intervals = Intervals {
    refresh: Duration::from_secs(3600),
    retry: Duration::from_secs(3600),
    look: Duration::from_secs(3600),
};
/// As often as it is asked to.
const EAGER: Intervals = Intervals {
    refresh: Duration::from_millis(10),
    retry: Duration::ZERO,
    look: Duration::from_millis(10),
};

fn from_file(text: &str, intervals: Intervals) -> (JwtVerifier, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let settings = settings(JwtKeys::File(file.path().to_owned()));
    let verifier = JwtVerifier::with(&settings, Arc::new(Metrics::new()), intervals).unwrap();
    (verifier, file)
}

fn of_text(text: &str) -> Result<JwtVerifier, SettingsError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let settings = settings(JwtKeys::File(file.path().to_owned()));
    JwtVerifier::new(&settings, Arc::new(Metrics::new()))
}

/// As a file is exchanged that others read: at once, and whole.
fn exchange(file: &tempfile::NamedTempFile, text: &str) {
    let new = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(new.path(), text).unwrap();
    std::fs::rename(new.path(), file.path()).unwrap();
}

/// An issuer that serves this text.
struct Issuer {
    url: String,
    served: Arc<Served>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Served {
    text: parking_lot::Mutex<String>,
    asked: AtomicUsize,
}

impl Issuer {
    async fn start(text: String) -> Self {
        async fn keys(State(served): State<Arc<Served>>) -> String {
            served.asked.fetch_add(1, Ordering::SeqCst);
            served.text.lock().clone()
        }
        let served = Arc::new(Served { text: text.into(), ..Served::default() });
        let router = Router::new().route("/keys", get(keys)).with_state(Arc::clone(&served));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let _ends = axum::serve(listener, router).await;
        });
        Self { url, served, task }
    }

    fn serves(&self, text: String) {
        *self.served.text.lock() = text;
    }

    fn asked(&self) -> usize {
        self.served.asked.load(Ordering::SeqCst)
    }

    fn verifier(&self, intervals: Intervals) -> (Arc<JwtVerifier>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let settings = settings(JwtKeys::Url(self.url.clone()));
        let verifier = JwtVerifier::with(&settings, Arc::clone(&metrics), intervals).unwrap();
        (Arc::new(verifier), metrics)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refreshes(metrics: &Metrics, result: &str) -> u64 {
    let page = String::from_utf8(metrics.render().unwrap()).unwrap();
    let series = format!("jwt_keys_refresh_total{{result=\"{result}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap().parse().unwrap()
}

async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_token_of_each_kind_of_key_is_accepted() {
    let keys = [Signer::p256("a"), Signer::p384("b"), Signer::ed25519("c"), Signer::rsa("d")];
    let (verifier, _file) = from_file(&set(&keys.each_ref()), STILL);
    for key in &keys {
        let identity = verifier.verify(&key.good_token()).await.unwrap();
        assert_eq!((identity.subject.as_str(), identity.roles), ("ann", vec!["editor".to_owned()]));
        let left_s = i64::try_from(identity.expires_at_ms / 1_000).unwrap() - now_s();
        assert!((600..=661).contains(&left_s), "{left_s}");
    }
    for algorithm in ["RS512", "PS256", "PS384"] {
        let mut header = keys[3].header();
        header["alg"] = json!(algorithm);
        let token = keys[3].token(&header, &claims());
        assert!(verifier.verify(&token).await.is_ok(), "{algorithm}");
    }
}

#[tokio::test]
async fn the_claims_decide() {
    let key = Signer::p256("a");
    let (verifier, _file) = from_file(&set(&[&key]), STILL);
    let claim = |claim, reason| JwtError::Claim { claim, reason };
    let no_form = "is missing or has the wrong form";
    for (claims, expected) in [
        (but("iss", json!("https://other.example")), JwtError::IssuerWrong),
        (but("iss", json!([ISSUER])), JwtError::IssuerWrong),
        (but("aud", json!("others")), JwtError::AudienceWrong),
        (but("aud", json!([])), JwtError::AudienceWrong),
        (but("exp", json!(now_s() - 61)), JwtError::Expired),
        (but("exp", json!(0)), JwtError::Expired),
        (but("nbf", json!(now_s() + 120)), JwtError::NotYetValid),
        (but("nbf", json!("soon")), claim("nbf", "has the wrong form")),
        (but("exp", json!("2100-01-01")), claim("exp", no_form)),
        (without("exp"), claim("exp", no_form)),
        (without("iss"), claim("iss", no_form)),
        (without("aud"), claim("aud", no_form)),
        (without("sub"), claim("sub", no_form)),
        (but("sub", json!("")), claim("sub", "is empty")),
    ] {
        let token = key.token(&key.header(), &claims);
        assert_eq!(verifier.verify(&token).await, Err(expected), "{claims}");
    }
    for fine in [
        but("aud", json!(AUDIENCE)),
        but("exp", json!(now_s() - 30)),
        but("nbf", json!(now_s() + 30)),
        without("nbf"),
        without("roles"),
    ] {
        let token = key.token(&key.header(), &fine);
        assert!(verifier.verify(&token).await.is_ok(), "{fine}");
    }
}

#[tokio::test]
async fn the_key_decides_what_may_have_signed() {
    let (key, ed, stranger) = (Signer::p256("a"), Signer::ed25519("b"), Signer::p256("a"));
    let (verifier, _file) = from_file(&set(&[&key, &ed]), STILL);
    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});

    // No signature at all, in every spelling.
    for none in ["none", "None", "NONE", ""] {
        let token = format!("{}.", message(&header(none, "a"), &claims()));
        assert_eq!(verifier.verify(&token).await, Err(JwtError::AlgorithmRefused), "{none:?}");
    }
    // The public key, which everybody knows, as a shared secret.
    for secret in [key.public(), key.jwk().to_string().into_bytes()] {
        let message = message(&header("HS256", "a"), &claims());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
        let token = format!("{message}.{}", encode(tag.as_ref()));
        assert_eq!(verifier.verify(&token).await, Err(JwtError::AlgorithmRefused));
    }
    for (token, expected) in [
        (stranger.good_token(), JwtError::SignatureWrong),
        (key.token(&header("ES256", "b"), &claims()), JwtError::KeyUnfit),
        (key.token(&header("EdDSA", "a"), &claims()), JwtError::KeyUnfit),
        (key.token(&header("RS256", "a"), &claims()), JwtError::KeyUnfit),
        (key.token(&header("ES384", "a"), &claims()), JwtError::KeyUnfit),
        (key.token(&header("ES256", "c"), &claims()), JwtError::KeyUnknown),
        (key.token(&header("ES256", ""), &claims()), JwtError::KeyUnknown),
        (key.token(&json!({"alg": "ES256"}), &claims()), JwtError::KeyNotNamed),
        (
            key.token(&json!({"alg": "ES256", "kid": "a", "crit": ["exp"]}), &claims()),
            JwtError::Malformed,
        ),
    ] {
        assert_eq!(verifier.verify(&token).await, Err(expected), "{token}");
    }
    assert!(verifier.verify(&key.good_token()).await.is_ok());
    assert!(verifier.verify(&ed.good_token()).await.is_ok());
}

#[tokio::test]
async fn what_was_changed_or_is_no_token_is_refused_and_not_repeated() {
    let key = Signer::p256("a");
    let (verifier, _file) = from_file(&set(&[&key]), STILL);
    let good = key.good_token();
    let parts: Vec<&str> = good.split('.').collect();
    let admin = encode(but("roles", json!(["admin"])).to_string().as_bytes());
    let twice = encode(br#"{"alg":"ES256","alg":"ES256","kid":"a"}"#);
    let long = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX));
    for (token, expected) in [
        (format!("{}.{admin}.{}", parts[0], parts[2]), JwtError::SignatureWrong),
        (format!("{}.{}.", parts[0], parts[1]), JwtError::SignatureWrong),
        (format!("{}.{}.AAAA", parts[0], parts[1]), JwtError::SignatureWrong),
        (format!("{twice}.{}.{}", parts[1], parts[2]), JwtError::Malformed),
        (format!("{good}.{}", parts[2]), JwtError::Malformed),
        (format!("{}.{}", parts[0], parts[1]), JwtError::Malformed),
        (format!("{}.{}.!{}", parts[0], parts[1], &parts[2][1..]), JwtError::Malformed),
        (format!("{}==.{}.{}", parts[0], parts[1], parts[2]), JwtError::Malformed),
        ("..".to_owned(), JwtError::Malformed),
        (String::new(), JwtError::Malformed),
        ("\u{fc}.\u{fc}.\u{fc}".to_owned(), JwtError::Malformed),
        (long, JwtError::TooLong),
    ] {
        let error = verifier.verify(&token).await.unwrap_err();
        assert_eq!(error, expected, "{token}");
        for part in token.split('.').filter(|part| part.len() > 3) {
            assert!(!error.to_string().contains(part), "{error}");
        }
    }
    let padded = but("more", json!("x".repeat(5_000)));
    assert!(verifier.verify(&key.token(&key.header(), &padded)).await.is_ok());
}

#[tokio::test]
async fn a_set_with_one_key_needs_no_name() {
    let named = Signer::p256("a");
    let (verifier, _file) = from_file(&set(&[&named]), STILL);
    let anonymous = named.token(&json!({"alg": "ES256"}), &claims());
    assert!(verifier.verify(&anonymous).await.is_ok());

    let nameless = Signer::p256("").nameless();
    let (verifier, _file) = from_file(&set(&[&nameless]), STILL);
    for header in [json!({"alg": "ES256"}), json!({"alg": "ES256", "kid": "whatever"})] {
        assert!(verifier.verify(&nameless.token(&header, &claims())).await.is_ok(), "{header}");
    }
}

#[tokio::test]
async fn a_key_says_what_it_is_for() {
    let (key, other) = (Signer::p256("a"), Signer::rsa("b"));
    let with = |name: &str, value: Value| {
        let mut jwk = key.jwk();
        jwk[name] = value;
        json!({"keys": [jwk, other.jwk()]}).to_string()
    };
    for (text, expected) in [
        (with("alg", json!("ES256")), Ok(())),
        (with("use", json!("sig")), Ok(())),
        (with("key_ops", json!(["verify"])), Ok(())),
        (with("alg", json!("ES384")), Err(JwtError::KeyUnknown)),
        (with("alg", json!("HS256")), Err(JwtError::KeyUnknown)),
        (with("alg", json!("made-up")), Err(JwtError::KeyUnknown)),
        (with("use", json!("enc")), Err(JwtError::KeyUnknown)),
        (with("key_ops", json!(["encrypt"])), Err(JwtError::KeyUnknown)),
        (with("crv", json!("P-384")), Err(JwtError::KeyUnknown)),
        (with("crv", json!("secp256k1")), Err(JwtError::KeyUnknown)),
        (with("x", json!("AAAA")), Err(JwtError::KeyUnknown)),
    ] {
        let (verifier, _file) = from_file(&text, STILL);
        // Named, so that the other key is never meant.
        let token = key.token(&json!({"alg": "ES256", "kid": "a"}), &claims());
        assert_eq!(verifier.verify(&token).await.map(|_| ()), expected, "{text}");
    }
    // Made for one algorithm, it is not used with another of its kind.
    let mut jwk = other.jwk();
    jwk["alg"] = json!("PS256");
    let (verifier, _file) = from_file(&json!({"keys": [jwk]}).to_string(), STILL);
    assert_eq!(verifier.verify(&other.good_token()).await, Err(JwtError::KeyUnfit));
}

#[tokio::test]
async fn a_file_without_usable_keys_is_refused_with_its_name() {
    let many = vec![Signer::p256("a").jwk(); 65];
    for (text, part) in [
        (String::new(), "is no key set"),
        ("[]".to_owned(), "is no key set"),
        ("{}".to_owned(), "is no key set"),
        (json!({"keys": []}).to_string(), "no key that can be used"),
        (json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string(), "no key that can be used"),
        (
            json!({"keys": [7, {"kty": "RSA", "n": "AAAA", "e": "AQAB"}]}).to_string(),
            "no key that can be used",
        ),
        (json!({"keys": many}).to_string(), "at most 64"),
        (" ".repeat(1 << 21), "larger than"),
    ] {
        let sentence = of_text(&text).unwrap_err().to_string();
        assert!(sentence.starts_with("--jwt-keys /") && sentence.contains(part), "{sentence}");
    }
    let missing = settings(JwtKeys::File("/nowhere/keys.json".into()));
    let sentence = JwtVerifier::new(&missing, Arc::new(Metrics::new())).unwrap_err().to_string();
    assert!(sentence.contains("/nowhere/keys.json: cannot be read"), "{sentence}");
}

#[tokio::test]
async fn keys_that_cannot_be_used_do_not_spoil_the_others() {
    let key = Signer::p256("a");
    let text = json!({"keys": [
        7, {}, {"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        key.jwk(), {"kty": "made-up", "kid": "z"},
    ]});
    let verifier = of_text(&text.to_string()).unwrap();
    assert!(verifier.verify(&key.good_token()).await.is_ok());
}

#[tokio::test]
async fn a_file_that_changes_is_read_again() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let only_looks = Intervals { retry: Duration::from_secs(3600), ..EAGER };
    let (verifier, file) = from_file(&set(&[&old]), only_looks);
    let verifier = Arc::new(verifier);
    let closing = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&verifier).run(closing.clone()));
    // Takes the one reading that an unknown key may cause, so that only looking can find the new key.
    assert_eq!(verifier.verify(&new.good_token()).await, Err(JwtError::KeyUnknown));

    exchange(&file, &set(&[&old, &new]));
    let token = new.good_token();
    wait_for("the new key is accepted", async || verifier.verify(&token).await.is_ok()).await;

    // A file that is broken or gone takes nothing away.
    exchange(&file, "half of a");
    let failures = |wanted: u64| {
        let verifier = Arc::clone(&verifier);
        async move || refreshes(&verifier.metrics, "failed") >= wanted
    };
    wait_for("the broken file is seen", failures(1)).await;
    assert!(verifier.verify(&token).await.is_ok());
    file.close().unwrap();
    wait_for("the file is missed", failures(2)).await;
    assert!(verifier.verify(&token).await.is_ok());

    closing.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_rotated_key_is_fetched_for_its_first_token() {
    let (old, new) = (Signer::p256("old"), Signer::ed25519("new"));
    let issuer = Issuer::start(set(&[&old])).await;
    let (verifier, metrics) = issuer.verifier(EAGER);
    assert!(verifier.verify(&old.good_token()).await.is_ok(), "fetched for the first token");
    assert_eq!(verifier.verify(&new.good_token()).await, Err(JwtError::KeyUnknown));

    issuer.serves(set(&[&new]));
    assert!(verifier.verify(&new.good_token()).await.is_ok());
    assert_eq!(verifier.verify(&old.good_token()).await, Err(JwtError::KeyUnknown), "withdrawn");
    assert!(refreshes(&metrics, "ok") >= 3);
}

#[tokio::test]
async fn made_up_key_names_do_not_make_a_node_ask_again_and_again() {
    let (key, stranger) = (Signer::p256("a"), Signer::p256("made-up"));
    let issuer = Issuer::start(set(&[&key])).await;
    let (verifier, _) = issuer.verifier(STILL);
    let token = stranger.good_token();
    let asking = (0..50).map(|_| verifier.verify(&token));
    for answer in futures::future::join_all(asking).await {
        assert_eq!(answer, Err(JwtError::KeyUnknown));
    }
    assert!(verifier.verify(&key.good_token()).await.is_ok());
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_down_leaves_the_last_good_set_in_force() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let issuer = Issuer::start(set(&[&old])).await;
    let (verifier, metrics) = issuer.verifier(EAGER);
    let closing = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&verifier).run(closing.clone()));
    wait_for("the set is fetched without a token", async || refreshes(&metrics, "ok") > 0).await;

    issuer.serves("<html>".to_owned());
    wait_for("nonsense is seen", async || refreshes(&metrics, "failed") > 0).await;
    assert!(verifier.verify(&old.good_token()).await.is_ok());

    issuer.task.abort();
    let before = refreshes(&metrics, "failed");
    wait_for("silence is seen", async || refreshes(&metrics, "failed") > before + 1).await;
    assert!(verifier.verify(&old.good_token()).await.is_ok());
    assert_eq!(verifier.verify(&new.good_token()).await, Err(JwtError::KeyUnknown));

    closing.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn before_the_first_set_the_node_says_that_it_cannot_judge() {
    let key = Signer::p256("a");
    let issuer = Issuer::start("not yet".to_owned()).await;
    let (verifier, _) = issuer.verifier(EAGER);
    let error = verifier.verify(&key.good_token()).await.unwrap_err();
    assert!(error.is_of_node() && !JwtError::SignatureWrong.is_of_node(), "{error}");
    issuer.serves(set(&[&key]));
    assert!(verifier.verify(&key.good_token()).await.is_ok());
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_elsewhere_is_no_set() {
    let large = Issuer::start(" ".repeat((1 << 20) + 1)).await;
    let address = Source::new(&JwtKeys::Url(large.url.clone())).unwrap();
    assert!(address.read().await.unwrap_err().contains("larger than"));
    let missing = Source::new(&JwtKeys::Url(format!("{}/x", large.url))).unwrap();
    assert!(missing.read().await.unwrap_err().contains("404"));
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", closed.local_addr().unwrap());
    drop(closed);
    let closed = Source::new(&JwtKeys::Url(url)).unwrap();
    assert!(closed.read().await.unwrap_err().contains("refused"));
    assert_eq!(closed.to_string(), "127.0.0.1", "no more than the host goes into the log");
}
