/* convert_impl.h: what the files of this room share.
 *
 *     sources.c     a path -> the files that a checkpoint consists of
 *     pickle.c      a Python pickle as data; pytorch.c: the tensors of a PyTorch file
 *     checkpoint.c  files on disk: tensors by their published name, JSON beside them
 *     family.c      the table of model families: tensor names, both worlds
 *     facts_*.c     hyper-parameters out of GGUF metadata or config.json -> struct model_facts
 *     vocabulary.c  pieces and merges -> SentencePiece proto and quip.tokenizer
 *     tokenizer_*.c tokenizer.json, GGUF metadata -> vocabulary
 *     plan.c        facts + tensors of the checkpoint -> tensors of the model file, all checked
 *     metadata.c    model_facts -> LlmParameters proto and quip.config
 *     rows.c        rows of the checkpoint as the model file means them
 *     lora_merge.c  a PEFT adapter added to those rows
 *     requantize.c  a model file in place of a checkpoint
 *     quantize_block.c  float rows -> block-wise int4
 *     calibrate.c   a model and a text -> which columns count
 *     verify.c      a model file and what it was made of -> how far they are from each other
 *     adapter_file.c  a PEFT adapter -> a LoRA file of the original
 *     bundle.c      a model file -> a .task bundle, and back; zip_writer.c: the archive
 *     store.c       rows of numbers -> bytes of the file, in the layout for CPUs or for GPUs
 *     convert.c     the story: all of these in order
 */
#ifndef QP_CONVERT_IMPL_H
#define QP_CONVERT_IMPL_H

#include "convert/convert.h"
#include "format/tflite_writer.h"
#include "model/matrix.h"
#include "model/tensor_names.h"
#include "tokenizer/tokenizer.h"

#include <cjson/cJSON.h>

/* ---- sources.c, pytorch.c ---- */

struct sources {
    char *folder;
    char **paths;
    int n;
};
/* format (may be NULL) is that of the options: of a folder only such files count. */
quip_status qp_sources_find(struct sources *s, const char *path, const char *format,
                            quip_error *error);
void qp_sources_close(struct sources *s);

/* ---- quantize_block.c ---- */

/* Block-wise int4 (model/matrix.h): cols / 2 bytes of codes and qp_multiplier_bytes(cols) of
 * multipliers a row. `importance` [cols] weighs the squared errors; NULL: all alike. */
bool qp_quantize_i4_block(const float *w, const float *importance, int64_t rows, int64_t cols,
                          uint8_t *codes, uint8_t *multipliers, float *scales);

/* ---- calibrate.c ---- */

/* Run the model over the text that the options name, and note what it multiplies its matrices by.
 * Closed by the caller whatever happens. */
struct calibration;
quip_status qp_calibrate(struct calibration **calibration, quip_model *model,
                         const struct convert_options *options, quip_error *error);
/* The importance of a matrix's columns [n_in]; NULL when c is, or the model has no such. */
const float *qp_calibration_find(const struct calibration *c, const char *name);
void qp_calibration_close(struct calibration *c); // NULL is fine

/* ---- checkpoint.c ---- */

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
};
struct checkpoint {
    const char *path; // as the caller spelled it; borrowed
    struct sources sources;
    bool is_gguf;
    struct shard *shards; // GGUF: one
    int n_shards;
    struct entry *entries; // sorted by key
    int n_entries;
    cJSON *config, *generation_config, *tokenizer_config; // not GGUF; the last two may be NULL
};
/* Of the options format, which may be NULL, and model_type, which says what a missing config.json
 * would. */
quip_status qp_checkpoint_open(struct checkpoint *c, const char *path,
                               const struct convert_options *options, quip_error *error);
void qp_checkpoint_close(struct checkpoint *c);
/* By the name that the family table gives it; NULL when there is none. */
struct entry *qp_checkpoint_find(const struct checkpoint *c, const char *name);

bool qp_path_is_model_file(const char *path); // by its first bytes
bool qp_path_is_json(const char *path);       // by its first character
/* Parse a JSON file; free with cJSON_Delete. */
quip_status qp_json_read(cJSON **json, const char *path, quip_error *error);
/* The same for a file of this name beside `path`; *json stays as it is where there is none. */
quip_status qp_json_beside(cJSON **json, const char *path, const char *name, quip_error *error);

/* ---- family.c ---- */

enum family_id {
    FAMILY_LLAMA = 1 << 0,
    FAMILY_GEMMA = 1 << 1,
    FAMILY_GEMMA2 = 1 << 2,
    FAMILY_GEMMA3 = 1 << 3,
    FAMILY_PHI2 = 1 << 4,
    FAMILY_FALCON = 1 << 5, // the RW kind
    FAMILY_STABLELM = 1 << 6,
};

/* A switch of config.json that only one position of can be converted. */
struct demand {
    const char *key;
    bool value, otherwise; // what it must be; what it is when absent
};

/* A model family. Sizes come from the checkpoint; a default here is what a config.json may leave
 * out because the family's own code has it. */
struct family {
    enum family_id id;
    const char *name;        // of the architecture, for quip.config and GGUF
    const char *hf_names[3]; // model_type in config.json
    const char *title;       // of the model type when no fixed type has its sizes
    const char *activation;  // the only one that the family's mathematics has
    const char *stops[3];    // pieces that end an answer, where the vocabulary has them
    /* Names in config.json; NULL: rms_norm_eps, intermediate_size, hidden_act. */
    const char *norm_eps_key, *d_ff_key, *activation_key;
    struct demand demands[6];
    bool is_gemma; // norms add 1 to the weight, tanh-GELU, tied, SentencePiece
    bool has_post_norms, has_qk_norm;
    bool has_layer_norm;            // with a bias; otherwise RMS
    bool has_biases, has_head_bias; // of the layers' matrices, of the head
    bool is_parallel;               // feed-forward beside attention: one norm for both
    bool has_alibi;                 // in place of rope
    bool is_tied;                   // when config.json does not say
    bool has_two_embeddings;        // the file has embedding and head, also of a tied model
    bool has_wrong_ids;             // its config.json gives ids of another vocabulary
    bool is_hf_only;                // GGUF has others of this name
    /* The original puts this token in front, although the model's own tokenizer has none there. */
    bool has_start_id;
    int start_id;
    bool implies_kv_heads; // the original does not say how many when all heads have their own
    int n_heads, n_kv_heads, head_dim, vocab_size, n_context; // 0: no default
    int d_ff_per_d_model;                                     // 0: no default
    int window, global_every; // window of local layers; each global_every-th is global. 0: none
    double rope_theta, rope_local_theta, attention_cap, logits_cap;
    double rope_fraction; // of a head's dimensions that rotate; 0: all
};
const struct family *qp_family_find(const char *name, bool is_gguf);

/* Fixed model types of the format, by size. */
struct model_type {
    enum family_id family;
    int n_layers, d_model;
    const char *title;
    uint32_t value;     // LlmModelType
    const char *config; // what its config.json says, where that is not the family's default
};
const struct model_type *qp_model_type_find(enum family_id family, int n_layers, int d_model);
const struct model_type *qp_model_type_named(const char *title); // NULL: no such
/* What the config.json of a model of this type says; NULL: no such. */
const char *qp_model_type_config(const char *title);

enum weight_class {
    CLASS_NORM, // vectors are never quantized
    CLASS_BIAS,
    CLASS_ATTENTION,
    CLASS_FEED_FORWARD,
    CLASS_EMBEDDING, // embedding and head
};
/* Sizes that depend on the model. */
enum extent {
    EXTENT_NONE,
    EXTENT_MODEL, // d_model
    EXTENT_FF,    // d_ff
    EXTENT_VOCAB, // vocab_size
    EXTENT_HEAD,  // head_dim
    EXTENT_Q,     // n_heads * head_dim
    EXTENT_KV,    // n_kv_heads * head_dim
};
enum tying {
    TYING_ANY,
    TYING_TIED,   // only in models whose head is the embedding
    TYING_UNTIED, // only in the others
};
struct tensor_row {
    unsigned families;              // bits of enum family_id
    const char *target, *hf, *gguf; // "%d" is the layer
    enum weight_class weight_class;
    enum extent rows, cols; // a vector: [rows]
    enum tying tying;
    bool has_rope; // GGUF llama orders these rows for adjacent-pair rope
    enum part part;
};
extern const struct tensor_row qp_tensor_rows[];
extern const int qp_n_tensor_rows;
bool qp_tensor_row_is_layered(const struct tensor_row *row);

/* ---- facts_gguf.c, facts_hf.c ---- */

enum {
    FACTS_MAX_STOPS = 8,
    FACTS_MAX_LAYERS = 512
};

/* Everything about a model but its weights and vocabulary. */
struct model_facts {
    const struct family *family;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    int n_context; // positions trained for; 0: not said
    int rope_dim;  // rotated dimensions of a head; qp_facts_finish turns 0 into all
    double norm_eps, rope_theta, rope_local_theta, rope_scaling, query_scale;
    double attention_cap, logits_cap;       // 0: none
    int window;                             // of local layers; 0: none are
    char layer_types[FACTS_MAX_LAYERS + 1]; // 'L' or 'G' each; "" when all are global
    bool is_tied;
    int bos, eos, unk, pad; // -1: none
    bool has_bos;           // bos goes in front of a prompt
    int stops[FACTS_MAX_STOPS];
    int n_stops;
    const char *chat; // template name of tokenizer.h
    uint64_t n_parameters;
};
quip_status qp_facts_from_gguf(struct model_facts *f, struct checkpoint *c, quip_error *error);
quip_status qp_facts_from_hf(struct model_facts *f, struct checkpoint *c, quip_error *error);
/* Fill in what follows from the family and check what the rest relies on. */
quip_status qp_facts_finish(struct model_facts *f, const char *path, quip_error *error);
void qp_facts_add_stop(struct model_facts *f, int id);
/* layer_types with every `global_every`-th layer global. */
void qp_facts_set_pattern(struct model_facts *f, int global_every);

/* ---- vocabulary.c ---- */

struct vocab_piece {
    size_t offset, n; // in the pool
    float score;
    enum piece_type type; // 0: not set yet
};
/* Pieces by id, and what a blob says beside them. Texts are copied. */
struct vocabulary {
    struct bytes pool;
    struct vocab_piece *pieces;
    int n_pieces;
    int *slots; // hash table of ids, -1 empty; NULL until qp_vocabulary_index
    size_t n_slots;
    struct spm_options options;
    bool has_blob;         // SentencePiece alone cannot say it, as for byte-level BPE
    double *scores;        // [n_pieces] of Hugging Face's unigram models, else NULL
    struct bytes charsmap; // for the normalizer_spec; empty for none
    struct bpe_spec spec;  // its texts are borrowed
    int merges_capacity, added_capacity;
};
quip_status qp_vocabulary_open(struct vocabulary *v, int n_pieces, quip_error *error);
void qp_vocabulary_close(struct vocabulary *v);
quip_status qp_vocabulary_set(struct vocabulary *v, int id, const char *text, size_t n, float score,
                              enum piece_type type, quip_error *error);
quip_status qp_vocabulary_index(struct vocabulary *v, quip_error *error);
/* After qp_vocabulary_index; -1 when there is none. Of equal pieces, the first. */
int qp_vocabulary_find(const struct vocabulary *v, const char *text, size_t n);
/* The next merge in rank order: both halves and their joint must be pieces. */
quip_status qp_vocabulary_merge(struct vocabulary *v, const char *left, size_t n_left,
                                const char *right, size_t n_right, quip_error *error);
quip_status qp_vocabulary_add(struct vocabulary *v, const struct bpe_added *added,
                              quip_error *error);
/* Write at most `limit` pieces (0: all). */
quip_status qp_vocabulary_write(const struct vocabulary *v, int limit, struct bytes *spm,
                                struct bytes *bpe, quip_error *error);

/* ---- json_pipeline.c ---- */

/* An item; NULL when absent or null. Its text, or "". */
const cJSON *qp_json_item(const cJSON *object, const char *key);
const char *qp_json_text(const cJSON *object, const char *key);
bool qp_json_has_type(const cJSON *object, const char *type);
bool qp_json_flag(const cJSON *object, const char *key, bool otherwise);
/* Fill v->spec, v->options and v->has_blob from everything in a tokenizer.json but its pieces. */
quip_status qp_json_pipeline(struct vocabulary *v, const cJSON *json, const char *path,
                             quip_error *error);

/* ---- tokenizer_json.c, tokenizer_gguf.c ---- */

quip_status qp_tokenizer_from_json(const cJSON *json, const cJSON *config, const char *path,
                                   int limit, struct bytes *spm, struct bytes *bpe,
                                   quip_error *error);
/* Whether the post-processor puts a special token in front of every text. */
bool qp_json_puts_bos(const cJSON *json);
/* The text of an entry such as "bos_token", which is a string or an object with "content"; NULL
 * when there is none. */
const char *qp_token_text(const cJSON *config, const char *key);

/* ---- store.c ---- */

/* One tensor of the model file and how it is kept. A vector is one row, of floats. */
struct stored {
    const char *source; // its name where it comes from, for messages
    int64_t rows, cols;
    enum dtype dtype;          // F32, I8, I4 or I4_BLOCK; for GPUs an unquantized matrix is F16
    bool is_for_gpu, is_mse;   // the layout; the scheme of the scales
    bool is_asymmetric;        // with a zero point per row
    bool is_first;             // in the file
    int index;                 // in the writer
    int scale_index;           // of what goes with a quantized matrix
    int multiplier_index;      // of I4_BLOCK
    const float *importance;   // of the columns of I4_BLOCK; NULL: all alike
    int zero_index, sum_index; // for GPUs
};
/* How the options want a class of tensors kept; fills all but source and sizes. */
void qp_store_as(struct stored *s, const struct convert_options *o, enum weight_class weight_class);
/* Declare a matrix and what goes with it under its full name ("params.lm. ..."), or a vector; the
 * norms of LayerNorm have a shape and for GPUs a name of their own. */
quip_status qp_store_declare(struct tflite_writer *w, struct stored *s, const char *name,
                             quip_error *error);
quip_status qp_store_declare_vector(struct tflite_writer *w, struct stored *s, const char *name,
                                    bool is_layer_norm, quip_error *error);
/* Bytes of the values alone, without scales. */
uint64_t qp_stored_bytes(const struct stored *s);

/* Memory for as many rows as are written at a time. */
struct slab {
    struct pool *pool; // for what takes longer than writing it
    void *packed;      // integers as files for CPUs have them
    uint8_t *multipliers;
    float *scales, *zeros;
    uint8_t *tiles;
    int32_t *sums;
    int64_t n_values, n_rows; // room
};
quip_status qp_slab_open(struct slab *slab, int64_t n_values, int64_t n_rows, quip_error *error);
void qp_slab_close(struct slab *slab);
/* Write rows [begin, begin + n); for GPUs both are multiples of 4 in a matrix. Quantize floats
 * first; or take integers as they are, packed in the slab with what goes with them. */
quip_status qp_store_floats(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                            int64_t begin, int64_t n, const float *values, quip_error *error);
quip_status qp_store_integers(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                              int64_t begin, int64_t n, quip_error *error);

/* ---- plan.c ---- */

/* One tensor on its way, as the model file has it. A vector is one row. */
struct job {
    const struct tensor_row *row;
    int layer;
    struct entry *entry;
    struct stored stored;
};
struct plan {
    struct job *jobs; // in the order of use
    int n_jobs;
};
/* Find and check the source of every tensor of the model file. Counts f->n_parameters. */
quip_status qp_plan_make(struct plan *plan, const struct checkpoint *c, struct model_facts *f,
                         const struct convert_options *options, quip_error *error);
void qp_plan_close(struct plan *plan);

/* ---- lora_merge.c ---- */

/* A PEFT adapter that is added to the weights as they are read. */
struct lora_merge;
/* Closed by the caller whatever happens. */
quip_status qp_lora_merge_open(struct lora_merge **merge, const char *path, const struct plan *plan,
                               quip_error *error);
void qp_lora_merge_close(struct lora_merge *m); // NULL is fine
/* Add to rows [begin, begin + n) of the job's matrix, which are in the file's order. */
quip_status qp_lora_merge_add(struct lora_merge *m, const struct job *job, int head_dim,
                              int64_t begin, int64_t n, float *rows, quip_error *error);

/* ---- rows.c ---- */

struct row_reader {
    const struct checkpoint *checkpoint;
    const struct model_facts *facts;
    struct lora_merge *merge; // NULL: none
    float *values, *ordered;  // rows as read; in our order
    int64_t max_values, max_rows;
};
/* Buffers for any job of the plan; the arguments outlive the reader. */
quip_status qp_rows_open(struct row_reader *r, const struct checkpoint *c,
                         const struct model_facts *f, const struct plan *plan,
                         struct lora_merge *merge, quip_error *error);
void qp_rows_close(struct row_reader *r);
/* As many rows as are read at once; of a job's rows always so many, but for the last. */
int64_t qp_rows_at_a_time(const struct row_reader *r, const struct job *job);
/* Rows [begin, begin + n) as the model file means them, valid until the next call. */
quip_status qp_rows_read(struct row_reader *r, const struct job *job, int64_t begin, int64_t n,
                         const float **values, quip_error *error);

/* ---- requantize.c ---- */

/* qp_convert, from a model file. */
quip_status qp_requantize(const char *in, const char *out, const struct convert_options *options,
                          quip_error *error);
/* Whether a tensor belongs to a matrix and is made with it: scales and the like. */
bool qp_is_companion(const char *name);

/* ---- verify.c ---- */

/* For `convert --verify`: declare room for the report; when all is written, but not yet under its
 * name, compare and fill it. Both do nothing where the options do not ask. */
quip_status qp_verify_declare(struct tflite_writer *w, const struct convert_options *o,
                              quip_error *error);
quip_status qp_verify_written(struct tflite_writer *w, const char *in, const char *out,
                              const struct convert_options *o, quip_error *error);

/* ---- zip_writer.c ---- */

#define ZIP_WRITER_ENTRIES 8

struct zip_written {
    const char *name; // borrowed
    uint64_t header, n_bytes;
    uint32_t crc;
};
struct zip_writer {
    struct out_file *file;
    uint64_t at; // where the next header goes
    struct zip_written entries[ZIP_WRITER_ENTRIES];
    int n_entries;
    uint32_t crc_table[256];
    uint8_t *buffer;
};
/* An archive at `path`, which appears when it is finished; its first header is at byte `begin`.
 * Closed by the caller whatever happens. */
quip_status qp_zip_writer_open(struct zip_writer *z, const char *path, uint64_t begin,
                               quip_error *error);
/* Copy `from`, a whole file, as one entry; names must live until the end. on_progress may be NULL.
 */
quip_status qp_zip_writer_add(struct zip_writer *z, const char *name, const struct file *from,
                              convert_on_progress *on_progress, void *user, quip_error *error);
/* Write the list of entries, and where it is. */
quip_status qp_zip_writer_finish(struct zip_writer *z, quip_error *error);
void qp_zip_writer_close(struct zip_writer *z); // all-zero is fine

/* ---- metadata.c ---- */

/* Append the serialized LlmParameters. `tokenizer` spells the stop tokens. */
bool qp_write_llm_parameters(const struct model_facts *f, const struct tokenizer *tokenizer,
                             bool for_gpu, struct bytes *out);
/* Append the text of quip.config. */
bool qp_write_quip_config(const struct model_facts *f, struct bytes *out);

#endif
