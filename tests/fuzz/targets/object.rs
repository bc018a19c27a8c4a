//! An object that is accepted is JSON, and what is no JSON is refused.
#![no_main]

use connectors::pushed::{Object, elements, scalar};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let value = serde_json::from_str::<Value>(text);
    match Object::parse(text) {
        Ok(object) => {
            let value = value.expect("what is accepted is JSON");
            let members = value.as_object().expect("and an object");
            assert_eq!(object.len(), members.len());
            for (name, value) in members {
                let text = object.member(name).expect("each member is there");
                assert_eq!(&serde_json::from_str::<Value>(text).expect("as JSON"), value);
                assert_eq!(
                    scalar(text).is_none(),
                    value.is_null() || value.is_object() || value.is_array()
                );
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(elements) = elements(text) {
        elements.iter().for_each(|element| drop(serde_json::from_str::<Value>(element)));
    }
});
