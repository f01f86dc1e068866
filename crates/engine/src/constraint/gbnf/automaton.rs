//! Finite automata of the parts of a grammar that are regular, to find out which of them a lexer
//! that takes the longest match reads as they are meant.

use std::collections::{BTreeSet, HashMap};

use super::{Grammar, NESTING_MAX, Node};

/// States beyond which a part is not worth it.
const NFA_MAX: usize = 4096;
const DFA_MAX: usize = 512;

/// The characters of a grammar in classes that no rule tells apart: where each begins.
pub(super) struct Alphabet(Vec<u32>);

/// A deterministic automaton whose every state leads to an end. State 0 is the first.
#[derive(Debug)]
pub(super) struct Automaton {
    next: Vec<Vec<Option<usize>>>, // [states, classes]
    ends: Vec<bool>,               // [states]
}

impl Alphabet {
    pub(super) fn of(grammar: &Grammar) -> Self {
        let mut starts = BTreeSet::from([0]);
        let mut rest: Vec<&Node> = grammar.rules.iter().collect();
        while let Some(node) = rest.pop() {
            match node {
                Node::Class { ranges, .. } => {
                    starts.extend(ranges.iter().map(|(first, _)| *first as u32));
                    starts.extend(ranges.iter().map(|(_, last)| *last as u32 + 1));
                }
                Node::Rule(_) => {}
                Node::Sequence(nodes) | Node::Choice(nodes) => rest.extend(nodes),
                Node::Repeat { node, .. } => rest.push(node),
            }
        }
        Self(starts.into_iter().collect())
    }

    /// Which classes of characters a class of a grammar has.
    fn classes(&self, ranges: &[(char, char)], negated: bool) -> Vec<usize> {
        let has = |start: u32| {
            ranges.iter().any(|&(a, b)| (a as u32..=b as u32).contains(&start)) != negated
        };
        (0..self.0.len()).filter(|&class| has(self.0[class])).collect()
    }
}

/// A nondeterministic automaton under construction.
struct Builder<'a> {
    grammar: &'a Grammar,
    alphabet: &'a Alphabet,
    empty: Vec<Vec<usize>>, // [states]: steps without a character
    steps: Vec<Vec<(Vec<usize>, usize)>>, // [states]
}

impl Builder<'_> {
    fn state(&mut self) -> Option<usize> {
        self.empty.push(Vec::new());
        self.steps.push(Vec::new());
        (self.empty.len() <= NFA_MAX).then_some(self.empty.len() - 1)
    }

    /// Adds a node after state `from`; returns its last state. `None` if it is recursive or too
    /// large.
    fn add(&mut self, node: &Node, from: usize, nesting: usize) -> Option<usize> {
        match node {
            Node::Class { ranges, negated } => {
                let to = self.state()?;
                self.steps[from].push((self.alphabet.classes(ranges, *negated), to));
                Some(to)
            }
            Node::Rule(rule) => {
                let grammar = self.grammar;
                (nesting < NESTING_MAX).then_some(())?;
                self.add(&grammar.rules[*rule], from, nesting + 1)
            }
            Node::Sequence(nodes) => {
                nodes.iter().try_fold(from, |from, node| self.add(node, from, nesting))
            }
            Node::Choice(options) => {
                let to = self.state()?;
                for option in options {
                    let end = self.add(option, from, nesting)?;
                    self.empty[end].push(to);
                }
                Some(to)
            }
            Node::Repeat { node, min, max } => {
                let mut at = from;
                for _ in 0..*min {
                    at = self.add(node, at, nesting)?;
                }
                // States of their own, so that nothing else leads back into the loop.
                let (begin, to) = (self.state()?, self.state()?);
                self.empty[at].extend([begin, to]);
                let Some(max) = max else {
                    let end = self.add(node, begin, nesting)?;
                    self.empty[end].extend([begin, to]);
                    return Some(to);
                };
                at = begin;
                for _ in *min..*max {
                    let end = self.add(node, at, nesting)?;
                    at = self.state()?;
                    self.empty[end].extend([at, to]);
                }
                Some(to)
            }
        }
    }

    fn closed(&self, mut states: BTreeSet<usize>) -> BTreeSet<usize> {
        let mut rest: Vec<usize> = states.iter().copied().collect();
        while let Some(state) = rest.pop() {
            rest.extend(self.empty[state].iter().filter(|&&next| states.insert(next)));
        }
        states
    }
}

impl Automaton {
    /// That of nodes one after the other; `None` if one is recursive, or they are too large.
    pub(super) fn of(grammar: &Grammar, alphabet: &Alphabet, nodes: &[Node]) -> Option<Self> {
        let (empty, steps) = (Vec::new(), Vec::new());
        let mut nfa = Builder { grammar, alphabet, empty, steps };
        let first = nfa.state()?;
        let last = nodes.iter().try_fold(first, |from, node| nfa.add(node, from, 0))?;
        let begin = nfa.closed(BTreeSet::from([first]));
        let mut known = HashMap::from([(begin.clone(), 0)]);
        let mut sets = vec![begin];
        let mut next: Vec<Vec<Option<usize>>> = Vec::new();
        while next.len() < sets.len() {
            let set = sets[next.len()].clone();
            let mut targets = vec![BTreeSet::new(); alphabet.0.len()];
            for (classes, to) in set.iter().flat_map(|&state| &nfa.steps[state]) {
                classes.iter().for_each(|&class| _ = targets[class].insert(*to));
            }
            let mut row = Vec::with_capacity(targets.len());
            for target in targets {
                if target.is_empty() {
                    row.push(None);
                    continue;
                }
                let target = nfa.closed(target);
                let state = *known.entry(target.clone()).or_insert_with(|| {
                    sets.push(target);
                    sets.len() - 1
                });
                row.push(Some(state));
            }
            next.push(row);
            (sets.len() <= DFA_MAX).then_some(())?;
        }
        let ends = sets.iter().map(|set| set.contains(&last)).collect();
        Some(Self { next, ends }.trimmed())
    }

    /// Without steps to states from which no end can be reached.
    fn trimmed(mut self) -> Self {
        let mut alive = self.ends.clone();
        loop {
            let before = alive.iter().filter(|alive| **alive).count();
            for (state, row) in self.next.iter().enumerate() {
                alive[state] |= row.iter().flatten().any(|&next| alive[next]);
            }
            if alive.iter().filter(|alive| **alive).count() == before {
                break;
            }
        }
        for next in self.next.iter_mut().flatten() {
            *next = next.filter(|&next| alive[next]);
        }
        self
    }

    /// Whether it accepts the empty text.
    pub(super) fn is_nullable(&self) -> bool {
        self.ends[0]
    }

    /// Whether some text of it is followed by more in some text of `other`, which may be itself.
    pub(super) fn is_prefix_of(&self, other: &Self) -> bool {
        let mut seen = BTreeSet::from([(0, 0)]);
        let mut rest = vec![(0, 0)];
        while let Some((a, b)) = rest.pop() {
            if self.ends[a] && other.next[b].iter().any(Option::is_some) {
                return true;
            }
            let both = self.next[a].iter().zip(&other.next[b]);
            for pair in both.filter_map(|(a, b)| a.zip(*b)) {
                if seen.insert(pair) {
                    rest.push(pair);
                }
            }
        }
        false
    }
}
