//! Circles between the files of a crate: which file names what another file defines, read from the paths in the source.
//!
//! A re-export is followed to the file that defines the item, so a `mod.rs` that only gathers is part of no circle.
//! Modules under `#[cfg(test)]` are left out: a test may look at everything.

use anyhow::{Context, bail};
use cargo_metadata::Package;
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A place in a source file where a path of another file's item is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// Counted from one.
    line: usize,
    /// As written: `crate::task::Task`.
    path: String,
}

/// What the files of one target refer to: from file, to file, and the first reference between them. Files are named
/// relative to the repository.
pub(crate) type Graph = BTreeMap<String, BTreeMap<String, Reference>>;

/// The graphs of a package's targets (library, binaries, test binaries), each with the targets' own module tree.
pub(crate) fn graphs(root: &Path, package: &Package) -> anyhow::Result<Vec<Graph>> {
    let sources = package.targets.iter().map(|target| target.src_path.as_std_path());
    sources.filter(|source| !source.ends_with("build.rs")).map(|source| graph(root, source)).collect()
}

/// Every circle in the graphs, once.
pub(crate) fn faults(graphs: &[Graph]) -> Vec<String> {
    let circles: BTreeSet<String> = graphs.iter().flat_map(circles).collect();
    circles.into_iter().map(|circle| format!("circle: {circle}")).collect()
}

/// The shortest circle through each file that is part of one. A file that an earlier circle names is not asked again.
fn circles(graph: &Graph) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for start in graph.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = shortest_circle(graph, start) {
            circles.push(describe(graph, &circle));
            seen.extend(circle);
        }
    }
    circles
}

/// The files of the shortest circle through a file, the file itself first.
fn shortest_circle(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let after = graph.get(start)?.keys();
    after.filter_map(|next| shortest_path(graph, next, start)).min_by_key(Vec::len).map(|mut path| {
        path.rotate_right(1);
        path
    })
}

/// The files from one to another along the edges, both included.
fn shortest_path(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(file) = queue.pop_front() {
        if file == to {
            let mut path = vec![file.to_owned()];
            let mut at = file;
            while at != from {
                at = before.get(at)?;
                path.push(at.to_owned());
            }
            path.reverse();
            return Some(path);
        }
        for next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if next != from && !before.contains_key(next.as_str()) {
                before.insert(next, file);
                queue.push_back(next);
            }
        }
    }
    None
}

/// `a.rs:3 (crate::b::B) -> b.rs:9 (super::a::A) -> a.rs`.
fn describe(graph: &Graph, circle: &[String]) -> String {
    let mut text = String::new();
    for (from, to) in circle.iter().zip(circle.iter().cycle().skip(1)) {
        if let Some(Reference { line, path }) = graph.get(from).and_then(|edges| edges.get(to)) {
            text.push_str(&format!("{from}:{line} ({path}) -> "));
        }
    }
    text + circle.first().map_or("", String::as_str)
}

/// A module of a target: a file, or a `mod name { .. }` inside of one.
#[derive(Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// The names that the module defines.
    items: BTreeSet<String>,
    /// The names that it imports, with their paths.
    imports: BTreeMap<String, Vec<String>>,
    /// The paths of `use path::*`.
    globs: Vec<Vec<String>>,
    references: Vec<(Vec<String>, Reference)>,
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// An item, by the module that defines it.
    Item(usize),
}

/// The module tree of one target.
struct Tree {
    modules: Vec<Module>,
}

fn graph(root: &Path, source: &Path) -> anyhow::Result<Graph> {
    let tree = Tree::load(root, source)?;
    let mut graph = Graph::new();
    for (from, module) in tree.modules.iter().enumerate() {
        for (path, reference) in &module.references {
            let Some(to) = tree.defining_file(from, path) else { continue };
            if *to != module.file {
                let first = graph.entry(module.file.clone()).or_default().entry(to.clone());
                let first = first.or_insert_with(|| reference.clone());
                if reference < first {
                    *first = reference.clone();
                }
            }
        }
    }
    Ok(graph)
}

impl Tree {
    fn load(root: &Path, source: &Path) -> anyhow::Result<Self> {
        let folder = source.parent().context("a source file has a folder")?;
        let mut tree = Self { modules: vec![Module::default()] };
        let mut files = vec![SourceFile { module: 0, path: source.to_owned(), below: folder.to_owned() }];
        while let Some(file) = files.pop() {
            let text = fs::read_to_string(&file.path).with_context(|| file.path.display().to_string())?;
            let parsed = syn::parse_file(&text).with_context(|| file.path.display().to_string())?;
            let name = file.path.strip_prefix(root).unwrap_or(&file.path).display().to_string();
            if let Some(module) = tree.modules.get_mut(file.module) {
                module.file = name;
            }
            let mut reader = PathCollector {
                tree: &mut tree,
                at: file.module,
                below: file.below,
                file: file.path,
                found: Vec::new(),
            };
            reader.visit_file(&parsed);
            files.append(&mut reader.found);
            if let Some(fault) = files.iter().find(|file| !file.path.exists()) {
                bail!("{} is declared as a module and does not exist", fault.path.display());
            }
        }
        Ok(tree)
    }

    fn defining_file(&self, from: usize, path: &[String]) -> Option<&String> {
        let (last, before) = path.split_last()?;
        let target = if last == "*" {
            self.resolve(from, before, &mut Vec::new())
        } else {
            self.resolve(from, path, &mut Vec::new())
        };
        match target? {
            // A module that is only named needs nothing of its file yet; what is named in it counts where it is named.
            Target::Module(_) if last != "*" => None,
            Target::Module(module) | Target::Item(module) => {
                self.modules.get(module).map(|module| &module.file)
            }
        }
    }

    /// What a path leads to, as written in a module. None for what lies outside of the crate.
    fn resolve(&self, from: usize, path: &[String], asked: &mut Vec<(usize, String)>) -> Option<Target> {
        let mut segments = path.iter();
        let mut target = match segments.next()?.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(from),
            "super" => Target::Module(self.modules.get(from)?.parent?),
            name => self.member(from, name, asked)?,
        };
        for name in segments {
            target = match target {
                // What follows an item is its own: a variant, a constant, a method.
                Target::Item(_) => return Some(target),
                Target::Module(module) if name == "super" => {
                    Target::Module(self.modules.get(module)?.parent?)
                }
                Target::Module(module) => self.member(module, name, asked).unwrap_or(Target::Item(module)),
            };
        }
        Some(target)
    }

    /// What a name means in a module. `asked` ends what imports itself.
    fn member(&self, module: usize, name: &str, asked: &mut Vec<(usize, String)>) -> Option<Target> {
        let question = (module, name.to_owned());
        if asked.contains(&question) {
            return None;
        }
        asked.push(question);
        let here = self.modules.get(module)?;
        if let Some(child) = here.children.get(name) {
            return Some(Target::Module(*child));
        }
        if here.items.contains(name) {
            return Some(Target::Item(module));
        }
        if let Some(path) = here.imports.get(name) {
            return self.resolve(module, path, asked);
        }
        here.globs.iter().find_map(|path| match self.resolve(module, path, asked)? {
            Target::Module(other) => self.member(other, name, asked),
            Target::Item(_) => None,
        })
    }
}

/// A file that is still to be read.
struct SourceFile {
    module: usize,
    path: PathBuf,
    /// Where the files of its submodules lie.
    below: PathBuf,
}

/// Reads a file into the tree.
struct PathCollector<'tree> {
    tree: &'tree mut Tree,
    /// The module that is being read.
    at: usize,
    below: PathBuf,
    file: PathBuf,
    found: Vec<SourceFile>,
}

impl PathCollector<'_> {
    fn module(&mut self) -> Option<&mut Module> {
        self.tree.modules.get_mut(self.at)
    }

    fn refer(&mut self, path: Vec<String>, line: usize) {
        let reference = Reference { line, path: path.join("::") };
        if let Some(module) = self.module() {
            module.references.push((path, reference));
        }
    }

    /// Adds a child to the present module and returns its number. Of two declarations under opposite features the first
    /// gets the name.
    fn add_child(&mut self, name: &str) -> usize {
        let child = self.tree.modules.len();
        let parent = self.at;
        let file = self.module().map(|module| module.file.clone()).unwrap_or_default();
        self.tree.modules.push(Module { file, parent: Some(parent), ..Module::default() });
        if let Some(module) = self.module() {
            module.children.entry(name.to_owned()).or_insert(child);
        }
        child
    }

    fn imported(&mut self, mut path: Vec<String>, tree: &syn::UseTree) {
        let line = tree.span().start().line;
        let name = match tree {
            syn::UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                return self.imported(path, &inner.tree);
            }
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.imported(path.clone(), item));
            }
            syn::UseTree::Glob(_) => {
                if let Some(module) = self.module() {
                    module.globs.push(path.clone());
                }
                path.push("*".to_owned());
                return self.refer(path, line);
            }
            syn::UseTree::Name(name) => {
                extend(&mut path, &name.ident);
                path.last().cloned().unwrap_or_default()
            }
            syn::UseTree::Rename(rename) => {
                extend(&mut path, &rename.ident);
                rename.rename.to_string()
            }
        };
        if let Some(module) = self.module() {
            module.imports.insert(name, path.clone());
        }
        self.refer(path, line);
    }

    /// Macros hide paths in tokens: every `a::b::c` in them counts.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 && !path.is_empty() {
                        self.refer(std::mem::take(&mut path), line);
                    }
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Group(group) => {
                    if !path.is_empty() {
                        self.refer(std::mem::take(&mut path), line);
                    }
                    colons = 0;
                    self.read_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    if !path.is_empty() {
                        self.refer(std::mem::take(&mut path), line);
                    }
                    colons = 0;
                }
            }
        }
        if !path.is_empty() {
            self.refer(path, line);
        }
    }
}

impl<'ast> Visit<'ast> for PathCollector<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (attributes, name) = attributes_and_name(item);
        if attributes.iter().any(is_for_tests) {
            return;
        }
        if let (Some(name), Some(module)) = (name, self.module()) {
            module.items.insert(name.to_string());
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let child = self.add_child(&name);
        let Some((_, items)) = &item.content else {
            let (path, below) = place(&self.file, &self.below, &name, &item.attrs);
            return self.found.push(SourceFile { module: child, path, below });
        };
        let outer = std::mem::replace(&mut self.at, child);
        let below = self.below.join(&name);
        let outer_below = std::mem::replace(&mut self.below, below);
        items.iter().for_each(|item| self.visit_item(item));
        self.at = outer;
        self.below = outer_below;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // A re-export hands on what another file defines; who names it names that file.
        let referred = self.module().map_or(0, |module| module.references.len());
        self.imported(Vec::new(), &item.tree);
        if !matches!(item.vis, syn::Visibility::Inherited)
            && let Some(module) = self.module()
        {
            module.references.truncate(referred);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.refer(segments, path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.read_tokens(called.tokens.clone());
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.read_tokens(list.tokens.clone());
    }

    // `pub(in crate::x)` says who may look, not what is used.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

/// Adds a segment to a path; `self` at its end adds nothing.
fn extend(path: &mut Vec<String>, segment: &syn::Ident) {
    if segment != "self" {
        path.push(segment.to_string());
    }
}

/// The attributes of an item, and the name that it defines.
fn attributes_and_name(item: &syn::Item) -> (&[syn::Attribute], Option<&syn::Ident>) {
    match item {
        syn::Item::Const(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        syn::Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        syn::Item::Static(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::TraitAlias(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::Type(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::Union(item) => (&item.attrs, Some(&item.ident)),
        syn::Item::Impl(item) => (&item.attrs, None),
        syn::Item::Mod(item) => (&item.attrs, None),
        syn::Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

/// `#[cfg(test)]`, `#[cfg(all(test, ..))]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let condition = list.tokens.to_string();
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
}

/// The file of `mod name;`, and the folder of its submodules.
fn place(file: &Path, below: &Path, name: &str, attributes: &[syn::Attribute]) -> (PathBuf, PathBuf) {
    let named = attributes.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    if let Some(named) = named {
        let path = file.with_file_name(named);
        let folder = path.parent().unwrap_or(below).to_owned();
        return (path, folder);
    }
    let folder = below.join(name);
    let in_folder = folder.join("mod.rs");
    let path = if in_folder.exists() { in_folder } else { below.join(format!("{name}.rs")) };
    (path, folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a library made of the given files, of which the first is its root.
    fn faults_of(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        faults(&[graph(folder.path(), &folder.path().join(files[0].0)).unwrap()])
    }

    #[test]
    fn a_circle_is_reported_as_a_path() {
        let check = |files: &[(&str, &str)], expected: &str| {
            assert_eq!(faults_of(files), [format!("circle: {expected}")], "{files:?}");
        };
        let root = ("lib.rs", "mod a; mod b;");
        let (a, b) =
            (("a.rs", "use crate::b::B;\nstruct A(B);"), ("b.rs", "\nfn b(a: super::a::A) {}\nstruct B;"));
        check(&[root, a, b], "a.rs:1 (crate::b::B) -> b.rs:2 (super::a::A) -> a.rs");
        // In a group, under another name, through a module's name, in an expression.
        check(
            &[
                root,
                ("a.rs", "use crate::{b::{self as other}};\nfn a() { other::f() }"),
                ("b.rs", "pub fn f() { crate::a::a() }"),
            ],
            "a.rs:2 (other::f) -> b.rs:1 (crate::a::a) -> a.rs",
        );
        // In a macro's tokens, an attribute's, and an inline module.
        check(
            &[
                root,
                ("a.rs", "fn a() { write!(out, \"{}\", crate::b::B) }"),
                ("b.rs", "#[arg(parser = super::a::a)] struct B;"),
            ],
            "a.rs:1 (crate::b::B) -> b.rs:1 (super::a::a) -> a.rs",
        );
        check(
            &[
                root,
                ("a.rs", "mod inner { fn f(b: super::super::b::B) {} }"),
                ("b.rs", "use crate::a::*; struct B;"),
            ],
            "a.rs:1 (super::super::b::B) -> b.rs:1 (crate::a::*) -> a.rs",
        );
        // Through a re-export, and through a parent.
        check(
            &[
                ("lib.rs", "mod a; mod b; pub use a::A;"),
                ("a.rs", "use crate::b::B; struct A;"),
                ("b.rs", "use crate::A; struct B;"),
            ],
            "a.rs:1 (crate::b::B) -> b.rs:1 (crate::A) -> a.rs",
        );
        check(
            &[
                ("main.rs", "mod a;\nfn main() { a::run() }\nfn root() {}"),
                ("a/mod.rs", "pub fn run() { crate::root() }"),
            ],
            "a/mod.rs:1 (crate::root) -> main.rs:2 (a::run) -> a/mod.rs",
        );
    }

    #[test]
    fn each_circle_is_reported() {
        let pair = |from: &str, to: &str| format!("use crate::{to}::T{to}; struct T{from};");
        let files = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "e"), ("e", "c")];
        let texts: Vec<(String, String)> =
            files.iter().map(|(from, to)| (format!("{from}.rs"), pair(from, to))).collect();
        let mut sources = vec![("lib.rs", "mod a; mod b; mod c; mod d; mod e;")];
        sources.extend(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let faults = faults_of(&sources);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[1].starts_with("circle: c.rs:1 (crate::d::Td) -> d.rs:1"), "{faults:?}");
    }

    #[test]
    fn a_hierarchy_has_no_circle() {
        let check = |files: &[(&str, &str)]| assert_eq!(faults_of(files), Vec::<String>::new(), "{files:?}");
        check(&[
            ("lib.rs", "mod a; mod b; fn f() { a::f() }"),
            ("a.rs", "use crate::b::B; pub fn f() {}"),
            ("b.rs", "struct B;"),
        ]);
        // A root that only gathers; a test that looks up; a dependency with the name of nothing here.
        check(&[
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; struct A;"),
            ("b.rs", "struct B;"),
        ]);
        check(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; struct A;"),
            ("b.rs", "struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ]);
        check(&[
            ("lib.rs", "mod a; use std::fmt::Debug; fn f() { a::f() }"),
            ("a.rs", "use std::a::f; pub(in crate) fn f() {}"),
        ]);
    }
}
