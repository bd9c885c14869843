/* strftime.c: the date and time, as strftime of Python writes them in the C locale.
 * In:  a format, and the time of the options or of the system.
 * Out: text; a refusal for a conversion that is not known. */
#include "jinja/jinja_impl.h"

#include <time.h>

static const char *const months[] = { "January",   "February", "March",    "April",
                                      "May",       "June",     "July",     "August",
                                      "September", "October",  "November", "December" };
static const char *const days[] = { "Sunday",   "Monday", "Tuesday", "Wednesday",
                                    "Thursday", "Friday", "Saturday" };

/* Days since 1 March of year 0 (H. Hinnant, days_from_civil). */
static int64_t day_number(int year, int month, int day)
{
    const int64_t y = year - (month <= 2);
    const int64_t m = month + (month > 2 ? -3 : 9);
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
}

struct jinja_time qp_jinja_clock(void)
{
    const time_t now = time(NULL);
#if defined(__wasm__) // the clock of the page is local time
    const int64_t day = now / 86400, second = now % 86400;
    struct jinja_time t = {
        1970, 1, 1, (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60)
    };
    const int64_t number = day + day_number(1970, 1, 1);
    t.year = (int)(number / 365.2425);
    t.year += day_number(t.year + 1, 1, 1) <= number;
    while (t.month < 12 && day_number(t.year, t.month + 1, 1) <= number)
        t.month++;
    t.day = 1 + (int)(number - day_number(t.year, t.month, 1));
    return t;
#else
    struct tm local;
#if defined(_WIN32)
    const bool ok = localtime_s(&local, &now) == 0;
#else
    const bool ok = localtime_r(&now, &local) != NULL;
#endif
    return ok ? (struct jinja_time){ local.tm_year + 1900, local.tm_mon + 1, local.tm_mday,
                                     local.tm_hour,        local.tm_min,     local.tm_sec }
              : (struct jinja_time){ 1970, 1, 1, 0, 0, 0 };
#endif
}

static bool put_time(struct text_out *o, char c, char fill, int width, const struct jinja_time *t)
{
    const int64_t day = day_number(t->year, t->month, t->day);
    const int weekday = (int)((day + 3) % 7); // 1 March of year 0 was a Wednesday
    const int yday = (int)(day - day_number(t->year, 1, 1));
    const int hour12 = t->hour % 12 ? t->hour % 12 : 12;
    const struct {
        char c;
        int value, width;
    } numbers[] = {
        { 'd', t->day, 2 },
        { 'H', t->hour, 2 },
        { 'I', hour12, 2 },
        { 'j', yday + 1, 3 },
        { 'm', t->month, 2 },
        { 'M', t->minute, 2 },
        { 'S', t->second, 2 },
        { 'y', t->year % 100, 2 },
        { 'C', t->year / 100, 2 },
        { 'u', weekday ? weekday : 7, 1 },
        { 'w', weekday, 1 },
        { 'Y', t->year, 1 },
        { 'U', (yday + 7 - weekday) / 7, 2 },
        { 'W', (yday + 7 - (weekday + 6) % 7) / 7, 2 },
    };
    for (size_t i = 0; i < QP_COUNT(numbers); i++)
        if (numbers[i].c == c) {
            qp_put_int(o, numbers[i].value, width ? numbers[i].width : 0, fill);
            return true;
        }
    const char *name = c == 'a' || c == 'A'               ? days[weekday]
                       : c == 'b' || c == 'B' || c == 'h' ? months[t->month - 1]
                       : c == 'p'                         ? (t->hour < 12 ? "AM" : "PM")
                                                          : NULL;
    if (name)
        qp_put(o, name, c == 'A' || c == 'B' ? strlen(name) : c == 'p' ? 2 : 3);
    else if (c == 'e' || c == 'k' || c == 'l')
        qp_put_int(o, c == 'e' ? t->day : c == 'k' ? t->hour : hour12, 2, width ? ' ' : fill);
    else if (c == '%' || c == 'n' || c == 't')
        qp_put_text(o, c == '%' ? "%" : c == 'n' ? "\n" : "\t");
    return name || (c && strchr("ekl%nt", c));
}

/* A conversion that stands for several others, or NULL. */
static const char *composed(char c)
{
    return c == 'F'               ? "%Y-%m-%d"
           : c == 'T' || c == 'X' ? "%H:%M:%S"
           : c == 'R'             ? "%H:%M"
           : c == 'D' || c == 'x' ? "%m/%d/%y"
           : c == 'r'             ? "%I:%M:%S %p"
           : c == 'c'             ? "%a %b %e %H:%M:%S %Y"
                                  : NULL;
}

static void put_format(struct text_out *o, const char *format, size_t n, const struct jinja_time *t)
{
    for (size_t i = 0; i < n && !o->run->has_failed; i++) {
        if (format[i] != '%') {
            qp_put(o, format + i, 1);
            continue;
        }
        const char flag = i + 1 < n ? format[i + 1] : '\0';
        const bool is_bare = flag == '-';
        i += 1 + is_bare;
        const char c = i < n ? format[i] : '\0';
        const char *parts = is_bare ? NULL : composed(c);
        if (parts)
            put_format(o, parts, strlen(parts), t);
        else if (!put_time(o, c, '0', is_bare ? 0 : 2, t))
            qp_run_refuse(o->run, "the conversion %%%c of strftime_now", c);
    }
}

struct value qp_strftime(struct run *r, const struct value *format)
{
    struct text_out o = { .run = r };
    if (format->kind != V_TEXT)
        return qp_run_fail(r, "strftime_now needs a text");
    const struct jinja_time now = r->now ? *r->now : qp_jinja_clock();
    put_format(&o, format->text, format->n, &now);
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}
