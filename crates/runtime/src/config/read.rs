//! Reads settings into the types that want them, and keeps the place for the error.

use std::collections::btree_map;

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess,
        VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    ConfigError,
    tree::{Node, Value},
};

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            let Value::Untyped(text) = &self.value else {
                return self.deserialize_any(visitor);
            };
            let value: $type = text
                .trim()
                .parse()
                .map_err(|_| ConfigError::new(concat!("expected ", $expected)).from(&self.origin))?;
            visitor.$visit(value).map_err(|error: ConfigError| error.from(&self.origin))
        })*
    };
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let read = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Untyped(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Map(map) => visitor.visit_map(Entries { entries: map.iter(), value: None }),
        };
        read.map_err(|error| error.from(&self.origin))
    }

    parsed! {
        deserialize_bool visit_bool bool, "`true` or `false`";
        deserialize_i8 visit_i64 i64, "a whole number";
        deserialize_i16 visit_i64 i64, "a whole number";
        deserialize_i32 visit_i64 i64, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u64 u64, "a whole number, not negative";
        deserialize_u16 visit_u64 u64, "a whole number, not negative";
        deserialize_u32 visit_u64 u64, "a whole number, not negative";
        deserialize_u64 visit_u64 u64, "a whole number, not negative";
        deserialize_f32 visit_f64 f64, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let empty = match &self.value {
            Value::Null => true,
            Value::Untyped(text) => text.is_empty(),
            _ => false,
        };
        if empty { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// In the environment a list is written with commas.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let Value::Untyped(text) = &self.value else {
            return self.deserialize_any(visitor);
        };
        let items: Vec<&str> =
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        visitor
            .visit_seq(de::value::SeqDeserializer::new(items.into_iter()))
            .map_err(|error: ConfigError| error.from(&self.origin))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let read = match &self.value {
            Value::Text(text) | Value::Untyped(text) => {
                let choice: StrDeserializer<'_, ConfigError> = text.as_str().into_deserializer();
                visitor.visit_enum(choice)
            }
            Value::Map(map) => match map.first_key_value() {
                Some((name, node)) if map.len() == 1 => visitor.visit_enum(Choice { name, node }),
                _ => Err(ConfigError::new("expected exactly one choice")),
            },
            _ => Err(ConfigError::new("expected the name of a choice")),
        };
        read.map_err(|error| error.from(&self.origin))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    /// Only unknown keys are ignored by those who read.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ConfigError> {
        Err(ConfigError::new("unknown key").from(&self.origin))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        let Some(node) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        let item = seed.deserialize(node).map_err(|error| error.below(index.to_string()));
        item.map(Some)
    }
}

struct Entries<'de> {
    entries: btree_map::Iter<'de, String, Node>,
    value: Option<(&'de str, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ConfigError> {
        let Some((key, node)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some((key, node));
        let name: StrDeserializer<'_, ConfigError> = key.as_str().into_deserializer();
        let read = seed.deserialize(name);
        read.map(Some).map_err(|error| error.from(&node.origin).below(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ConfigError> {
        let Some((key, node)) = self.value.take() else {
            return Err(ConfigError::custom("a value was read before its key"));
        };
        let read = seed.deserialize(node);
        read.map_err(|error| error.from(&node.origin).below(key))
    }
}

/// An enum's variant with contents.
struct Choice<'de> {
    name: &'de str,
    node: &'de Node,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = ConfigError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), ConfigError> {
        let name: StrDeserializer<'_, ConfigError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = ConfigError;

    fn unit_variant(self) -> Result<(), ConfigError> {
        match self.node.value {
            Value::Null => Ok(()),
            _ => Err(ConfigError::new("expected no contents").below(self.name)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, ConfigError> {
        seed.deserialize(self.node).map_err(|error| error.below(self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.node.deserialize_any(visitor).map_err(|error| error.below(self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.node.deserialize_any(visitor).map_err(|error| error.below(self.name))
    }
}
