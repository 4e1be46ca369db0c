//! Rules about Rust, on the syntax tree, so that strings and comments cannot mislead.

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, File, ImplItemFn, ItemFn, ItemImpl, ItemMod, Meta, Signature};
use syn::{TraitItemFn, Type};

use super::{Finding, MAX_FUNCTION_LINES, MAX_HANDLER_LINES, names};

/// What the rules need to know of a file.
pub(super) struct Source {
    functions: Vec<(String, usize)>,
    drawers: Vec<String>,
    test_lines: Vec<usize>,
}

impl Source {
    /// Reads a file.
    pub(super) fn parse(path: &str, text: &str) -> Result<Self> {
        let file: File = syn::parse_str(text).with_context(|| format!("cannot parse {path}"))?;
        let mut source =
            Self { functions: Vec::new(), drawers: Vec::new(), test_lines: Vec::new() };
        let code = text.lines().map(has_code).collect();
        Reader { source: &mut source, within: String::new(), code }.visit_file(&file);
        source.test_lines.sort_unstable();
        source.test_lines.dedup();
        Ok(source)
    }

    /// The numbers of the lines in test modules, from 1, ascending.
    pub(super) fn test_lines(&self) -> &[usize] {
        &self.test_lines
    }

    /// Functions that are too long and modules that are drawers.
    pub(super) fn findings(&self, path: &str) -> Vec<Finding> {
        let functions = self.functions.iter().map(|(name, lines)| {
            let handler = name == "handle";
            let (rule, limit) = if handler {
                ("handler-lines", MAX_HANDLER_LINES)
            } else {
                ("function-lines", MAX_FUNCTION_LINES)
            };
            Finding { rule, subject: format!("{path}:{name}"), value: *lines, limit }
        });
        let long = functions.filter(|finding| finding.value > finding.limit);
        let drawers = self.drawers.iter().map(|name| names::finding(format!("{path}:{name}")));
        long.chain(drawers).collect()
    }
}

struct Reader<'a> {
    source: &'a mut Source,
    /// `Type::` inside an implementation.
    within: String,
    /// By line, whether it holds more than blanks and a comment.
    code: Vec<bool>,
}

impl Reader<'_> {
    fn function(&mut self, signature: &Signature, block: &Block) {
        let name = format!("{}{}", self.within, signature.ident);
        let (first, last) = (signature.span().start().line, block.span().end().line);
        let lines =
            self.code.iter().take(last).skip(first.saturating_sub(1)).filter(|code| **code).count();
        self.source.functions.push((name, lines));
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        if names::is_drawer(&name) {
            self.source.drawers.push(name);
        }
        if module.content.is_some() && module.attrs.iter().any(is_test_only) {
            let (start, end) = (module.span().start().line, module.span().end().line);
            self.source.test_lines.extend(start..=end);
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_impl(&mut self, implementation: &'ast ItemImpl) {
        let outer = std::mem::replace(&mut self.within, type_name(&implementation.self_ty));
        visit::visit_item_impl(self, implementation);
        self.within = outer;
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn has_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

/// `Type::` of an implementation, nothing for types without a name.
fn type_name(of: &Type) -> String {
    let Type::Path(path) = of else {
        return String::new();
    };
    let last = path.path.segments.last();
    last.map(|segment| format!("{}::", segment.ident)).unwrap_or_default()
}

/// Whether it is `#[cfg(test)]`.
fn is_test_only(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}
