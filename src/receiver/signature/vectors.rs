//! The published vectors of all schemes, in one shape.

use data_encoding::BASE64;
use serde_json::Value;

/// Their clock, where they do not name one.
pub const NOW: i64 = 1_787_256_625;
const TOLERANCE: i64 = 300;

pub struct Vector {
    pub name: String,
    /// As the API spells it.
    pub scheme: String,
    pub now: i64,
    pub tolerance: i64,
    /// As they stand in files.
    pub secrets: Vec<Vec<u8>>,
    /// Secrets of other webhooks, which this one must not share.
    pub signing_secrets: Vec<String>,
    pub jwks: Vec<u8>,
    pub audience: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// `None` = accepted. An empty text where the vector does not say why it is refused.
    pub refused: Option<String>,
}

pub fn all() -> Vec<Vector> {
    let mut all = vec![];
    for vector in list(include_str!("testdata/standard_webhooks_hmac.json"), None) {
        let secrets = texts(&vector["secrets"]).map(String::into_bytes).collect();
        all.push(Vector { secrets, ..read(&vector, "StandardWebhooks") });
    }
    for vector in list(include_str!("testdata/article_x_goog_signature.json"), None) {
        let secrets = vec![text(&vector["secret"]).into_bytes()];
        all.push(Vector { secrets, ..read(&vector, "XGoogSignature") });
    }
    for vector in list(include_str!("testdata/scheme_selection.json"), None) {
        let policy = &vector["route_policy"];
        let scheme = text(&vector["pinned"]);
        let signing_secrets: Vec<String> = texts(&policy["whsec"]).collect();
        let own = match (scheme.as_str(), policy["article_secret_bytes_base64"].as_str()) {
            ("StandardWebhooks", _) => signing_secrets.iter().map(|text| text.clone().into_bytes()).collect(),
            (_, Some(bytes)) => vec![BASE64.decode(bytes.as_bytes()).unwrap()],
            (_, None) => vec![text(&policy["article_secret"]).into_bytes()],
        };
        all.push(Vector { secrets: own, signing_secrets, ..read(&vector, &scheme) });
    }
    let file = include_str!("testdata/dynamic_jwt.json");
    let whole: Value = serde_json::from_str(file).unwrap();
    for vector in list(file, Some("vectors")) {
        let (jwks, audience) = (whole["jwks"].to_string().into_bytes(), text(&whole["expected_audience"]));
        all.push(Vector { jwks, audience, ..read(&vector, "DynamicJwt") });
    }
    let file = include_str!("testdata/dynamic_v1a_ed25519.json");
    let whole: Value = serde_json::from_str(file).unwrap();
    for vector in list(file, Some("vectors")) {
        let set = &whole["jwks_sets"][text(&vector["jwks"])];
        all.push(Vector { jwks: set.to_string().into_bytes(), ..read(&vector, "DynamicV1a") });
    }
    // Guards against a file that is read as an empty list.
    assert_eq!(all.len(), 98);
    all
}

fn list(file: &str, inside: Option<&str>) -> Vec<Value> {
    let whole: Value = serde_json::from_str(file).unwrap();
    let list = inside.map_or(&whole, |name| &whole[name]);
    list.as_array().unwrap().clone()
}

fn read(vector: &Value, scheme: &str) -> Vector {
    let body = match vector["body_base64"].as_str() {
        Some(encoded) => BASE64.decode(encoded.as_bytes()).unwrap(),
        None => text(&vector["body_utf8"]).into_bytes(),
    };
    let headers = vector["headers"].as_object().unwrap();
    Vector {
        name: format!("{scheme} {}", text(&vector["name"])),
        scheme: scheme.to_owned(),
        now: vector["now"].as_i64().unwrap_or(NOW),
        tolerance: vector["tolerance_s"].as_i64().unwrap_or(TOLERANCE),
        secrets: vec![],
        signing_secrets: vec![],
        jwks: vec![],
        audience: String::new(),
        headers: headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        body,
        refused: match vector["expect"].as_str() {
            Some("accept") => None,
            Some("reject") => Some(vector["reason"].as_str().unwrap_or_default().to_owned()),
            other => panic!("{other:?}"),
        },
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn texts(values: &Value) -> impl Iterator<Item = String> {
    values.as_array().unwrap().iter().map(text)
}
