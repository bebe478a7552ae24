fn main() {
    use kube::CustomResourceExt;
    for crd in [gemini_operator::api::GeminiBatch::crd(), gemini_operator::api::GeminiWebhook::crd()] {
        println!("---");
        print!("{}", serde_yaml::to_string(&crd).unwrap_or_default());
    }
}
