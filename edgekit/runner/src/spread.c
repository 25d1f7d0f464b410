#include "spread.h"

/* Values below 32 have a bin each; above, the five bits after the leading one choose among 32 bins. */
static int bin_of(int64_t value) {
    if (value < 32)
        return (int)value;
    int exponent = 63 - __builtin_clzll((unsigned long long)value);
    return (exponent - 4) * 32 + (int)(value >> (exponent - 5) & 31);
}

static int64_t upper_edge(int bin) {
    if (bin < 32)
        return bin;
    int exponent = bin / 32 + 4;
    return ((int64_t)(32 + bin % 32) << (exponent - 5)) + ((int64_t)1 << (exponent - 5)) - 1;
}

void spread_add(struct spread *spread, int64_t ns) {
    int64_t value = ns < 0 ? 0 : ns;
    spread->bins[bin_of(value)]++;
    spread->count++;
    spread->sum += value;
    spread->max = value > spread->max ? value : spread->max;
}

static int64_t percentile(const struct spread *spread, int percent) {
    int64_t rank = (spread->count * percent + 99) / 100, seen = 0;
    int bin = 0;
    while (bin < SPREAD_BINS - 1 && (seen += spread->bins[bin]) < rank)
        bin++;
    int64_t edge = upper_edge(bin);
    return edge < spread->max ? edge : spread->max;
}

void spread_write(const struct spread *spread, struct json *j, const char *key) {
    if (!spread->count) {
        json_null(j, key);
        return;
    }
    json_begin(j, key, '{');
    json_int(j, "count", spread->count);
    json_int(j, "mean", spread->sum / spread->count);
    json_int(j, "p50", percentile(spread, 50));
    json_int(j, "p90", percentile(spread, 90));
    json_int(j, "p99", percentile(spread, 99));
    json_int(j, "max", spread->max);
    json_end(j, '}');
}
