/* What the rendered tables are made of. */

enum { TRAINING = 1, WANT_INPUT = 2, WANT_PARAMS = 4, UNPACKED = 8, SHARED_OUTER = 16, NARROW = 32, PACKED = 64 };
enum { AT_TAPE, AT_X, AT_STATE, AT_COLUMN, AT_TEMP, AT_GRAD_STATE, AT_GRAD_X };

typedef struct { int source, source_index, target, target_index, first, count, accumulate, transposed; } Run;
typedef struct { int matrix, column; } Entry;
typedef struct { int operand, index, matrix, column; } Outer;
