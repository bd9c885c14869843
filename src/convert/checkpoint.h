/* checkpoint.h: a checkpoint on disk: tensors by their published name, and the JSON beside
 * them (checkpoint.c). */
#ifndef QP_CHECKPOINT_H
#define QP_CHECKPOINT_H

#include "convert/convert.h"
#include "convert/sources.h"

#include <cjson/cJSON.h>

/* One tensor of the checkpoint, whichever file it is in. */
struct entry {
    const char *key; // its name without wrapping such as "model." (GGUF: its name)
    const struct tensor *tensor;
    const struct format *format;
    bool is_used;
};
struct shard {
    struct file file;
    struct format format;
    int fd;
    struct file_stamp stamp; // when it was opened
};
struct checkpoint {
    const char *path; // the caller's; borrowed
    struct sources sources;
    bool is_gguf;
    struct shard *shards; // GGUF: the parts in their order; the first has all metadata
    int n_shards;
    struct entry *entries; // sorted by key
    int n_entries;
    cJSON *config, *generation_config, *tokenizer_config; // not GGUF; the last two may be NULL
};
/* Of the options it uses format, which may be NULL, and model_type, which replaces a missing
 * config.json. */
quip_status qp_checkpoint_open(struct checkpoint *c, const char *path,
                               const struct convert_options *options, quip_error *error);
void qp_checkpoint_close(struct checkpoint *c);
/* QUIP_E_IO if another program has written to one of the files since they were opened. */
quip_status qp_checkpoint_check(const struct checkpoint *c, quip_error *error);
/* By its name in the family table; NULL if there is none. */
struct entry *qp_checkpoint_find(const struct checkpoint *c, const char *name);
/* Give an entry another name, which must outlive the checkpoint. Entries move. */
void qp_checkpoint_rename(struct checkpoint *c, struct entry *e, const char *name);

bool qp_path_is_model_file(const char *path); // by its first bytes

/* Open one file and its format. Close it also after a failure. */
quip_status qp_shard_open(struct shard *s, const char *path, quip_error *error);
void qp_shard_close(struct shard *s);

/* If the sources are GGUF files (checkpoint_gguf.c): leave those of one model, all its parts in
 * their order, or say why that is not possible. */
quip_status qp_choose_gguf(struct sources *s, quip_error *error);
/* Fails if a tensor has a type that is not read. */
quip_status qp_check_gguf_types(const struct format *g, quip_error *error);

#endif
