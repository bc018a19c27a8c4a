//! What is evaluated in the place of what was written.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators};

use super::{functions, mixed, work};

/// Bounds the work of an expression, and with `mixes` lets decimals meet other numbers.
pub(super) fn rewrite(mut expression: IdedExpr, mixes: bool) -> IdedExpr {
    replace(&mut expression, mixes);
    expression
}

fn replace(expression: &mut IdedExpr, mixes: bool) {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Call(call) => {
            if let Some(replacement) = replacement(call, mixes) {
                replacement.clone_into(&mut call.func_name);
            }
            call.target.iter_mut().for_each(|target| replace(target, mixes));
            call.args.iter_mut().for_each(|argument| replace(argument, mixes));
        }
        Expr::Select(select) => replace(&mut select.operand, mixes),
        Expr::List(list) => list.elements.iter_mut().for_each(|element| replace(element, mixes)),
        Expr::Map(map) => {
            map.entries.iter_mut().for_each(|entry| replace_entry(&mut entry.expr, mixes));
        }
        Expr::Struct(object) => {
            object.entries.iter_mut().for_each(|entry| replace_entry(&mut entry.expr, mixes));
        }
        Expr::Comprehension(comprehension) => {
            replace(&mut comprehension.iter_range, mixes);
            replace(&mut comprehension.accu_init, mixes);
            replace(&mut comprehension.loop_cond, mixes);
            replace(&mut comprehension.loop_step, mixes);
            replace(&mut comprehension.result, mixes);
            let body =
                work::steps(&comprehension.loop_cond) + work::steps(&comprehension.loop_step);
            work::count_turns(&mut comprehension.iter_range, body);
        }
    }
}

fn replacement(call: &CallExpr, mixes: bool) -> Option<&'static str> {
    match call.func_name.as_str() {
        "matches" => Some(functions::MATCHES),
        // What a macro adds to its list stays the list's own operator.
        operators::ADD if call.args.first().is_some_and(is_result_of_loop) => None,
        operator if mixes || operator == operators::ADD => mixed::replacement(operator),
        _ => None,
    }
}

fn is_result_of_loop(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name.starts_with('@'))
}

fn replace_entry(entry: &mut EntryExpr, mixes: bool) {
    match entry {
        EntryExpr::StructField(field) => replace(&mut field.value, mixes),
        EntryExpr::MapEntry(pair) => {
            replace(&mut pair.key, mixes);
            replace(&mut pair.value, mixes);
        }
    }
}
