//! The models that are served: get, list, countTokens.

use serde_json::{Value, json};

use crate::calls::Version;
use crate::errors::ApiError;
use crate::http::{Answer, Context, Reply};
use crate::json::get;
use crate::page;
use crate::rows::prompt_tokens;

struct Model {
    id: &'static str,
    title: &'static str,
    version: &'static str,
    input: u64,
    output: u64,
    methods: &'static [&'static str],
    /// Aliases live on v1beta only.
    beta_only: bool,
}

const GENERATE: &[&str] = &["generateContent", "countTokens", "createCachedContent", "batchGenerateContent"];
const EMBED: &[&str] = &["embedContent", "countTokens", "asyncBatchEmbedContent"];

const MODELS: &[Model] = &[
    generate("gemini-2.5-flash", "Gemini 2.5 Flash", "2.5"),
    generate("gemini-2.5-pro", "Gemini 2.5 Pro", "2.5"),
    generate("gemini-3.5-flash", "Gemini 3.5 Flash", "3.5"),
    generate("gemini-3.5-flash-lite", "Gemini 3.5 Flash-Lite", "3.5"),
    generate("gemini-3.5-pro", "Gemini 3.5 Pro", "3.5"),
    generate("gemini-3.8-flash", "Gemini 3.8 Flash", "3.8"),
    embed("gemini-embedding-001", "Gemini Embedding 001", "001"),
    embed("gemini-embedding-2", "Gemini Embedding 2", "2"),
    Model { beta_only: true, ..generate("gemini-flash-latest", "Gemini Flash Latest", "latest") },
];

const fn generate(id: &'static str, title: &'static str, version: &'static str) -> Model {
    Model { id, title, version, input: 1_048_576, output: 65_536, methods: GENERATE, beta_only: false }
}

const fn embed(id: &'static str, title: &'static str, version: &'static str) -> Model {
    Model { id, title, version, input: 8_192, output: 1, methods: EMBED, beta_only: false }
}

impl Model {
    fn json(&self) -> Value {
        json!({
            "name": format!("models/{}", self.id),
            "version": self.version,
            "displayName": self.title,
            "inputTokenLimit": self.input,
            "outputTokenLimit": self.output,
            "supportedGenerationMethods": self.methods,
        })
    }
}

fn served(version: Version) -> impl Iterator<Item = &'static Model> {
    MODELS.iter().filter(move |model| !model.beta_only || version == Version::V1Beta)
}

fn find(id: &str, version: Version) -> Option<&'static Model> {
    served(version).find(|model| model.id == id)
}

/// An error unless the model is there and has the method.
pub fn supports(id: &str, version: Version, method: &str) -> Result<(), ApiError> {
    if find(id, version).is_some_and(|model| model.methods.contains(&method)) {
        return Ok(());
    }
    Err(ApiError::rpc(
        404,
        format!(
            "models/{id} is not found for API version {}, or is not supported for {method}. Call ListModels to see \
             the list of available models and their supported methods.",
            version.path()
        ),
    ))
}

pub fn get_one(ctx: &Context) -> Answer {
    find(&ctx.id, ctx.version).map(|model| Reply::ok(&model.json())).ok_or_else(|| {
        ApiError::rpc(
            404,
            format!("Model is not found: models/{} for api version {}", ctx.id, ctx.version.path()),
        )
    })
}

pub fn list(ctx: &Context) -> Answer {
    let size = ctx.page_size(["pageSize", "page_size"], 50, 1000)?;
    let after = page::cursor(ctx.query("pageToken").or_else(|| ctx.query("page_token")))?;
    // In the order of the table: later entries have smaller places, because pages go from new to old.
    let models: Vec<(i64, &Model)> =
        served(ctx.version).enumerate().map(|(at, model)| (-at_place(at), model)).collect();
    let (shown, next) = page::cut(models, after.as_ref(), size, |(at, model)| (*at, model.id.to_owned()));
    let items = shown.into_iter().map(|(_, model)| model.json()).collect();
    Ok(page::answer("models", items, "nextPageToken", ctx.next_page_token.clone().or(next)))
}

fn at_place(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

pub fn count_tokens(ctx: &Context) -> Answer {
    supports(&ctx.id, ctx.version, "countTokens")?;
    let body = Value::Object(ctx.object()?);
    let tokens = prompt_tokens(get(&body, "generateContentRequest").unwrap_or(&body));
    Ok(Reply::ok(&json!({
        "totalTokens": tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}],
    })))
}
