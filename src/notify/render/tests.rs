//! Times and words, as people of different zones read them.
