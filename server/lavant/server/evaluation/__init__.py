"""Online evaluation: rules select finished runs, workers evaluate them, and the results are runs of their own.

1. `rules` creates a rule: its log gets a first record, with its settings and an empty ledger.
2. While workers are connected, the rule's `sampler` selects runs from the feed of changes, by `matching`.
3. Each worker's `stream` assigns samples to its session, for as long as the session renews its hold.
4. Workers return samples, or complete them: `outcomes` has the events of each outcome, scores in the row of the run.
5. All of these are decisions on the `ledger`, which the rule's `coordinator` reads and appends to, in a segment: an
   evaluation run. Replicas have a coordinator each; the append of one of them wins, the others read it and repeat.
6. A long segment, and one whose rule is changed or moved to another store, is sealed: a record in the rule's `log`
   carries the ledger over to the next one.
"""
