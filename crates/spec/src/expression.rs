//! CEL expressions: reading them and finding what they refer to.

use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use crate::nearest::suggest;

const MAX_BYTES: usize = 4096;
/// Loops within loops multiply their work, which is counted when they run.
const MAX_LOOP_DEPTH: usize = 2;
/// Evaluating costs stack for every level; so many take half of a usual thread in a debug build.
const MAX_DEPTH: usize = 32;
/// Parsing 4 KiB of the worst text in a debug build takes a good part of this.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// Names that CEL itself gives a meaning where no field has them.
const TYPE_NAMES: [&str; 10] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];

/// Functions of CEL's standard library.
const STANDARD_FUNCTIONS: [&str; 30] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "int",
    "list",
    "map",
    "matches",
    "max",
    "min",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// Functions that Tributary adds to CEL.
pub const FUNCTIONS: [&str; 28] = [
    "add_days",
    "add_months",
    "coalesce",
    "date",
    "day",
    "days_between",
    "decimal",
    "divide",
    "format_time",
    "hour",
    "indexOf",
    "join",
    "length",
    "lower",
    "matches_whole",
    "minute",
    "month",
    "parse_date",
    "parse_time",
    "replace",
    "round",
    "second",
    "sha256",
    "split",
    "substring",
    "trim",
    "upper",
    "year",
];

/// A CEL expression that can be evaluated.
#[derive(Debug)]
pub struct Expression {
    program: cel::Program,
    fields: Vec<String>,
}

/// A text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct InvalidExpression {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Expression {
    /// Parses an expression of at most 4 KiB.
    ///
    /// # Errors
    ///
    /// When the text is no CEL, calls a function that is unknown, or nests more loops (`map`,
    /// `filter`, `all`, `exists`) than two.
    pub fn parse(source: &str) -> Result<Self, InvalidExpression> {
        if source.len() > MAX_BYTES {
            return Err(invalid(
                format!("the expression has more than {MAX_BYTES} bytes"),
                "split it into several `compute` steps",
            ));
        }
        // The parser is recursive, so a hostile text would overflow the stack of a usual thread.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(PARSER_STACK_BYTES)
                .spawn_scoped(scope, || Self::parse_recursively(source))
                .ok()
                .and_then(|thread| thread.join().ok())
                .unwrap_or_else(|| {
                    Err(invalid(
                        "the expression cannot be read on this machine".to_owned(),
                        "make it simpler",
                    ))
                })
        })
    }

    fn parse_recursively(source: &str) -> Result<Self, InvalidExpression> {
        let program = cel::Program::compile(source).map_err(|errors| {
            let reason = errors.errors.first().map_or_else(
                || "it cannot be read".to_owned(),
                |error| format!("{} (line {}, column {})", error.msg, error.pos.0, error.pos.1),
            );
            invalid(
                format!("the expression is not CEL: {reason}"),
                "correct it; texts stand in quotes, and `==`, `&&`, `||` and `!` compare and combine",
            )
        })?;
        let mut found = Found::default();
        found.visit(program.expression(), &mut Vec::new(), Depth::default());
        if found.depth > MAX_DEPTH {
            return Err(invalid(
                format!("the expression has more than {MAX_DEPTH} levels"),
                "split it into several `compute` steps",
            ));
        }
        if found.loop_depth > MAX_LOOP_DEPTH {
            return Err(invalid(
                format!("the expression nests more than {MAX_LOOP_DEPTH} loops"),
                "use fewer of `map`, `filter`, `all` and `exists` within each other",
            ));
        }
        let known: Vec<&str> = STANDARD_FUNCTIONS.into_iter().chain(FUNCTIONS).collect();
        if let Some(unknown) = found
            .functions
            .iter()
            .find(|name| !is_operator(name) && !known.contains(&name.as_str()))
        {
            return Err(invalid(
                format!("the expression calls `{unknown}`, which is not a function"),
                suggest(unknown, "functions", &FUNCTIONS),
            ));
        }
        Ok(Self { fields: found.fields.into_iter().collect(), program })
    }

    /// Returns the names that the expression takes from outside, in alphabetical order. A name of
    /// a CEL type is among them only if it may be meant as a field.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Returns the compiled expression.
    #[must_use]
    pub fn program(&self) -> &cel::Program {
        &self.program
    }

    /// Tells whether CEL gives a meaning to `name` where no field has it.
    #[must_use]
    pub fn is_type_name(name: &str) -> bool {
        TYPE_NAMES.contains(&name)
    }
}

fn invalid(message: String, remedy: impl Into<String>) -> InvalidExpression {
    InvalidExpression { message, remedy: remedy.into() }
}

fn is_operator(name: &str) -> bool {
    name.starts_with(['_', '!', '-', '@'])
}

/// How deep a part of an expression lies.
#[derive(Clone, Copy, Default)]
struct Depth {
    levels: usize,
    loops: usize,
}

#[derive(Default)]
struct Found {
    fields: BTreeSet<String>,
    functions: BTreeSet<String>,
    depth: usize,
    loop_depth: usize,
}

impl Found {
    fn visit<'e>(&mut self, expression: &'e IdedExpr, bound: &mut Vec<&'e str>, depth: Depth) {
        let depth = Depth { levels: depth.levels + 1, ..depth };
        self.depth = self.depth.max(depth.levels);
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.trim_start_matches('.');
                if !name.starts_with('@') && !bound.contains(&name) {
                    self.fields.insert(name.to_owned());
                }
            }
            Expr::Call(call) => {
                self.functions.insert(call.func_name.clone());
                for part in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
                    self.visit(part, bound, depth);
                }
            }
            Expr::Select(select) => self.visit(&select.operand, bound, depth),
            Expr::List(list) => {
                for element in &list.elements {
                    self.visit(element, bound, depth);
                }
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|e| &e.expr), bound, depth),
            Expr::Struct(object) => {
                self.entries(object.entries.iter().map(|e| &e.expr), bound, depth);
            }
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range, bound, depth);
                self.visit(&comprehension.accu_init, bound, depth);
                let depth = Depth { loops: depth.loops + 1, ..depth };
                self.loop_depth = self.loop_depth.max(depth.loops);
                let outside = bound.len();
                bound.push(&comprehension.iter_var);
                bound.push(&comprehension.accu_var);
                bound.extend(comprehension.iter_var2.as_deref());
                self.visit(&comprehension.loop_cond, bound, depth);
                self.visit(&comprehension.loop_step, bound, depth);
                self.visit(&comprehension.result, bound, depth);
                bound.truncate(outside);
            }
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        bound: &mut Vec<&'e str>,
        depth: Depth,
    ) {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.visit(&field.value, bound, depth),
                EntryExpr::MapEntry(pair) => {
                    self.visit(&pair.key, bound, depth);
                    self.visit(&pair.value, bound, depth);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(source: &str) -> String {
        Expression::parse(source).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_expression_is_explained() {
        assert!(message("amount >").contains("not CEL"));
        assert!(message("").contains("not CEL"));
        assert!(message("lowr(name)").contains("did you mean `lower`?"));
        assert!(message(&"a".repeat(5000)).contains("more than 4096 bytes"));
        let nested = "[1].map(a, [1].map(b, [1].map(c, a + b + c)))";
        assert!(message(nested).contains("nests more than 2 loops"));
        assert!(message(&format!("{}a{}", "(".repeat(500), ")".repeat(500))).contains("not CEL"));
        for deep in ["a+", "!", "-", "a?a:", "[", "a.b(", "a&&", "{1:"] {
            drop(Expression::parse(&format!("{}a", deep.repeat(4000 / deep.len()))));
        }
        assert!(message(&format!("{}a", "a+".repeat(2000))).contains("more than 32 levels"));
    }

    #[test]
    fn only_names_from_outside_are_fields() {
        let parsed =
            Expression::parse("items.map(i, i.price * rate).exists(p, p > limit)").unwrap();
        assert_eq!(parsed.fields(), ["items", "limit", "rate"]);
        let parsed = Expression::parse("has(address.city) && type(a) == int").unwrap();
        assert_eq!(parsed.fields(), ["a", "address", "int"]);
    }
}
