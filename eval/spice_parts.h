/* spice_parts.h - scene graphs of SPICE; private to eval/. */
#ifndef SCA_EVAL_SPICE_PARTS_H
#define SCA_EVAL_SPICE_PARTS_H

#include "eval/meteor_parts.h"

/* Places in spice.pool: word numbers, synsets; both ascending and distinct. */
typedef struct concept {
    size_t words, synsets;
    uint32_t n_words, n_synsets;
}
concept;

/* A tuple of a graph: nodes and edges by index. */
typedef struct spice_edge {
    int32_t from, to;
    concept relation;
} spice_edge;
typedef struct spice_attribute {
    int32_t node;
    concept attribute;
} spice_attribute;

typedef struct spice_graph {
    concept *node;
    spice_attribute *attribute;
    spice_edge *edge;
    size_t n_nodes, n_attributes, n_edges, cap_nodes, cap_attributes, cap_edges;
} spice_graph;

typedef struct spice {
    meteor_words *words;
    lexicon known;     /* texts whose concept is known */
    concept *concepts; /* per known text, in the lasting part of the pool */
    size_t n_concepts, cap_concepts;
    uint32_t *lasting, *pool; /* concepts of texts; of graphs */
    size_t n_lasting, cap_lasting, n_pool, cap_pool;
    str key;
    bool printed; /* tuples of a graph that SPICE printed: "red/reddish" is one concept, nothing is left to merge */
} spice;
void spice_free(spice *s);
void spice_graph_free(spice_graph *g);
void spice_clear(spice *s, spice_graph *hyp, spice_graph *ref); /* for the next item */
sca_status spice_add(spice *s, spice_graph *g, spice_tuples tuples);

typedef struct spice_counts {
    size_t hyp, ref;           /* tuples of the graphs                                        */
    size_t true_hyp, true_ref; /* those with a similar tuple in the other graph               */
} spice_counts;
/* truth_hyp, truth_ref: per tuple (nodes, attributes, edges), or NULL. */
sca_status spice_match(spice *s, const spice_graph *hyp, const spice_graph *ref, bool *truth_hyp, bool *truth_ref,
                       spice_counts *out);
double spice_f1(const spice_counts *c);

#endif
