"""What can rank: a cross-encoder in this process, a language model, a reranking server. One Protocol."""
