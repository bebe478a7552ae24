//! The one place that writes YAML: serde_yaml is archived upstream, and nothing but printing needs it.

use serde::Serialize;

/// One YAML document, with its separator.
pub fn document(value: &impl Serialize) -> Result<String, String> {
    let text = serde_yaml::to_string(value).map_err(|e| e.to_string())?;
    Ok(format!("---\n{text}"))
}
