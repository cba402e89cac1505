//! Candidates as a tree of their common prefixes: what they share is decoded once.

use crate::{Error, Result};

/// Most nodes of a tree.
const NODES_MAX: usize = 1 << 13;

/// A token after its ancestors. The root is the start token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its token; the root's is the model's.
    pub(crate) token: u32,
    /// Tokens before it.
    pub(crate) depth: usize,
    /// What may follow: tokens and their nodes.
    children: Vec<(u32, usize)>,
    /// Whether a candidate ends here.
    pub(crate) ends: bool,
}

impl Node {
    /// Tokens that may follow; the end token is the last where a candidate ends here.
    pub(crate) fn continuations(&self, end: u32) -> Vec<u32> {
        self.children.iter().map(|(token, _)| *token).chain(self.ends.then_some(end)).collect()
    }
}

/// Candidates, such as the labels of a task, as token ids without start and end token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTree {
    /// In preorder: nodes before one are its ancestors, or lie in branches that are done.
    pub(crate) nodes: Vec<Node>,
    /// For each candidate the node before each of its tokens and before its end, and which continuation follows.
    pub(crate) paths: Vec<Vec<(usize, usize)>>,
}

impl LabelTree {
    /// The tree of some candidates. The same candidate may occur twice; an empty one is the end token alone.
    ///
    /// # Errors
    /// The candidates have more than 8,192 different prefixes.
    pub fn new(candidates: &[&[u32]]) -> Result<Self> {
        let root = Node { token: 0, depth: 0, children: Vec::new(), ends: false };
        let mut tree = Self { nodes: vec![root], paths: vec![Vec::new(); candidates.len()] };
        // In order of their tokens, new nodes are in preorder.
        let mut sorted: Vec<&[u32]> = candidates.to_vec();
        sorted.sort_unstable();
        for candidate in sorted {
            tree.insert(candidate)?;
        }
        let paths = candidates.iter().map(|candidate| tree.path(candidate)).collect();
        tree.paths = paths;
        Ok(tree)
    }

    /// Candidates.
    pub fn candidates(&self) -> usize {
        self.paths.len()
    }

    /// Nodes, the start token among them: positions that one pass computes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Positions of the longest path.
    pub(crate) fn positions(&self) -> usize {
        self.nodes.iter().map(|node| node.depth + 1).max().unwrap_or(1)
    }

    fn insert(&mut self, candidate: &[u32]) -> Result<()> {
        let mut at = 0;
        for (depth, token) in candidate.iter().enumerate() {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return Ok(()) };
            at = match node.children.last() {
                Some((last, child)) if last == token => *child,
                _ => {
                    if next >= NODES_MAX {
                        return Err(Error::Input(format!("more than {NODES_MAX} prefixes of candidates")));
                    }
                    node.children.push((*token, next));
                    self.nodes.push(Node {
                        token: *token,
                        depth: depth + 1,
                        children: Vec::new(),
                        ends: false,
                    });
                    next
                }
            };
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.ends = true;
        }
        Ok(())
    }

    fn path(&self, candidate: &[u32]) -> Vec<(usize, usize)> {
        let mut path = Vec::with_capacity(candidate.len() + 1);
        let mut at = 0;
        for token in candidate {
            let Some(node) = self.nodes.get(at) else { break };
            let found = node.children.iter().enumerate().find(|(_, (known, _))| known == token);
            let Some((place, (_, child))) = found else { break };
            path.push((at, place));
            at = *child;
        }
        path.push((at, self.nodes.get(at).map_or(0, |node| node.children.len())));
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_candidates_share_is_one_node_and_nodes_are_in_preorder() {
        let tree = LabelTree::new(&[&[7, 8], &[3], &[7, 8, 9], &[], &[7, 2], &[3]]).unwrap();
        let nodes: Vec<(u32, usize, bool)> =
            tree.nodes.iter().map(|node| (node.token, node.depth, node.ends)).collect();
        let expected = [(0, 0, true), (3, 1, true), (7, 1, false), (2, 2, true), (8, 2, true), (9, 3, true)];
        assert_eq!(nodes, expected);
        assert_eq!(tree.paths[0], [(0, 1), (2, 1), (4, 1)]);
        assert_eq!(tree.paths[3], [(0, 2)]);
        assert_eq!(tree.paths[1], tree.paths[5]);
        assert_eq!(tree.nodes[4].continuations(1), [9, 1]);
        assert_eq!(tree.positions(), 4);
    }
}
