//! Bodies of authentic deliveries: no panic, and nothing that is not fit to be stored comes out.
#![no_main]

use gemini_operator::receiver::{Envelope, Shape};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for shape in [Shape::Gemini, Shape::Tutorial] {
        check(&Envelope::parse(shape, body));
    }
});

fn check(envelope: &Envelope) {
    if let Some(type_) = envelope.type_() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
        assert!((1..=64).contains(&type_.len()) && type_.chars().all(plain), "{type_:?}");
    }
    if let Envelope::Batch(event) = envelope {
        let bare = event.remote_name.strip_prefix("batches/").unwrap();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        assert!((1..=128).contains(&bare.len()) && bare.chars().all(plain), "{bare:?}");
        assert!(event.type_.starts_with("batch."));
        if let Some(marker) = &event.marker {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
            assert!((1..=64).contains(&marker.len()) && marker.chars().all(plain), "{marker:?}");
        }
    }
}
