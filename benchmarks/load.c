/*
 * load: a load generator for servers that answer `time` and `quit`.
 *
 * One process, one epoll, no blocking calls: it must never be the bottleneck. Every run is bounded in count and in time
 * and ends by itself. It prints one JSON object; times in it are in milliseconds unless the key has another unit.
 *
 *   load sessions --port P --count N --at-once C --seconds T   complete sessions: connect, time, quit, end of file
 *   load paced    --port P --rate R --seconds T                R new clients/s, independent of the server
 *   load hold     --port P --count N --at-once C --seconds T   N clients answered once, held, answered again
 *   load pingpong --port P --count N                           one session, one command at a time
 *   load pipeline --port P --count N --batch B                 one session, N batches of B commands
 *
 * `hold` writes the line `held N` to standard error when all clients have been answered, and releases them when a line
 * or end of file arrives on standard input, or after T seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    STAMP = 19,               /* bytes of `2003/05/21 16:18:34` */
    COMMAND = 4,              /* bytes of a command, and of the answer to `quit` */
    EVENTS = 256,             /* epoll events taken at once */
    BATCH_MAX = 1024,         /* commands in one pipelined batch */
    CLIENTS_PER_SOURCE = 20000, /* ports used per source address; Linux has 28,232 by default */
    SILENCE_MS = 10000,       /* without an event for this long, the remaining clients fail */
};

enum mode { SESSIONS, PACED, HOLD, PINGPONG, PIPELINE, MODES };

static const char *const mode_names[MODES] = {"sessions", "paced", "hold", "pingpong", "pipeline"};

struct options {
    enum mode mode;
    struct sockaddr_in server;
    size_t count;     /* sessions, clients, round trips or batches */
    size_t at_once;   /* sessions in progress at any moment */
    size_t rate;      /* new clients per second */
    size_t batch;     /* commands sent together */
    double seconds;   /* no session starts after this; the time limit of `hold` */
};

enum step { CONNECTING, FIRST_ANSWER, HELD, SECOND_ANSWER, QUITTING, CLOSED };

struct client {
    int fd;
    enum step step;
    size_t received;             /* bytes of the current answer that are in `text` */
    int64_t began;            /* ns */
    char text[STAMP + 1];     /* one byte more than any answer, to detect a longer one */
};

struct run {
    struct options options;
    int epoll;
    struct client *clients;   /* options.count of them, in the order they are opened */
    size_t opened, held, finished, failed, again;
    bool releasing;           /* `hold`: every client sends `time` once more and quits */
    int64_t began, all_held, ended; /* ns */
    double *first_ms;         /* connect() to the last byte of the first answer, one for each client answered */
    double *session_ms;       /* connect() to end of file, one for each session finished */
    size_t firsts;
    char first_error[96];
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double ms_since(int64_t began)
{
    return (double)(now_ns() - began) / 1e6;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        err(1, "memory for %zu clients", count);
    return memory;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t count, double share)
{
    return count ? sorted[(size_t)(share * (double)(count - 1) + 0.5)] : 0.0;
}

/* Sorts `values`, and prints `"NAME": {"p50": …, "p90": …, "p99": …, "max": …}`. */
static void print_percentiles(const char *name, double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_size);
    printf("\"%s\": {\"p50\": %.4f, \"p90\": %.4f, \"p99\": %.4f, \"max\": %.4f}", name,
           percentile(values, count, 0.5), percentile(values, count, 0.9), percentile(values, count, 0.99),
           percentile(values, count, 1.0));
}

static void print_run(struct run *run)
{
    double seconds = (double)(run->ended - run->began) / 1e9;
    printf("{\"mode\": \"%s\", \"opened\": %zu, \"finished\": %zu, \"errors\": %zu, \"first_error\": \"%s\", ",
           mode_names[run->options.mode], run->opened, run->finished, run->failed, run->first_error);
    printf("\"seconds\": %.4f, \"per_second\": %.2f, ", seconds, (double)run->finished / seconds);
    if (run->options.mode == HOLD)
        printf("\"held\": %zu, \"answered_again\": %zu, \"opening_seconds\": %.4f, ", run->held, run->again,
               (double)(run->all_held - run->began) / 1e9);
    print_percentiles("first_answer_ms", run->first_ms, run->firsts);
    printf(", ");
    print_percentiles("session_ms", run->session_ms, run->finished);
    printf("}\n");
}

/* ---- one client -------------------------------------------------------------------------------------------------- */

static void close_client(struct client *client)
{
    close(client->fd);
    client->step = CLOSED;
}

static void fail(struct run *run, struct client *client, const char *what, int error)
{
    if (client->step == HELD)
        run->held--;
    if (run->failed++ == 0)
        snprintf(run->first_error, sizeof run->first_error, "%s%s%s", what, error ? ": " : "",
                 error ? strerror(error) : "");
    close_client(client);
}

static void send_command(struct run *run, struct client *client, const char *command, enum step next)
{
    client->received = 0;
    client->step = next;
    if (send(client->fd, command, COMMAND, MSG_NOSIGNAL) != COMMAND)
        fail(run, client, "send", errno);
}

static struct sockaddr_in source_of(size_t index)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(index / CLIENTS_PER_SOURCE));
    return source;
}

/* A source address is only bound after the first one's ports are used: bind(2) costs time that is not the server's. */
static bool bind_source(int fd, size_t index)
{
    struct sockaddr_in source = source_of(index);
    int on = 1;
    if (index < CLIENTS_PER_SOURCE)
        return true;
    return setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == 0 &&
           bind(fd, (struct sockaddr *)&source, sizeof source) == 0;
}

static bool begin_connecting(struct run *run, struct client *client, size_t index)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    struct sockaddr_in *server = &run->options.server;
    return bind_source(client->fd, index) &&
           (connect(client->fd, (struct sockaddr *)server, sizeof *server) == 0 || errno == EINPROGRESS) &&
           epoll_ctl(run->epoll, EPOLL_CTL_ADD, client->fd, &event) == 0;
}

static void open_client(struct run *run)
{
    size_t index = run->opened++;
    struct client *client = &run->clients[index];
    client->began = now_ns();
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        err(1, "socket");
    if (!begin_connecting(run, client, index))
        fail(run, client, "connect", errno);
}

static void finish(struct run *run, struct client *client)
{
    run->session_ms[run->finished++] = ms_since(client->began);
    close_client(client);
}

static void handle_answer(struct run *run, struct client *client)
{
    if (client->text[4] != '/' || client->text[13] != ':') {
        fail(run, client, "not a time", 0);
    } else if (client->step == SECOND_ANSWER) {
        run->again++;
        send_command(run, client, "quit", QUITTING);
    } else {
        run->first_ms[run->firsts++] = ms_since(client->began);
        if (run->options.mode != HOLD) {
            send_command(run, client, "quit", QUITTING);
        } else {
            client->step = HELD;
            run->held++;
        }
    }
}

static void handle_end(struct run *run, struct client *client)
{
    if (client->step == QUITTING && client->received == COMMAND && memcmp(client->text, "quit", COMMAND) == 0)
        finish(run, client);
    else
        fail(run, client, "unexpected end of file", 0);
}

/* Reads until EAGAIN, as an edge-triggered descriptor requires. */
static void read_client(struct run *run, struct client *client)
{
    while (client->step != CLOSED) {
        ssize_t got = recv(client->fd, client->text + client->received, sizeof client->text - client->received, 0);
        if (got < 0 && errno != EAGAIN)
            fail(run, client, "recv", errno);
        if (got < 0)
            return;
        client->received += (size_t)got;
        if (got == 0)
            handle_end(run, client);
        else if (client->received > (client->step == QUITTING ? COMMAND : STAMP) || client->step == HELD)
            fail(run, client, "more than an answer", 0);
        else if (client->received == STAMP)
            handle_answer(run, client);
    }
}

static void advance(struct run *run, struct client *client, uint32_t events)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (client->step == CLOSED)
        return;
    if (events & EPOLLERR) {
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        fail(run, client, client->step == CONNECTING ? "connect" : "session", error);
        return;
    }
    if (client->step == CONNECTING && events & EPOLLOUT)
        send_command(run, client, "time", FIRST_ANSWER);
    if (events & EPOLLIN)
        read_client(run, client);
}

/* ---- many clients ------------------------------------------------------------------------------------------------ */

static size_t in_progress(const struct run *run)
{
    size_t waiting = run->releasing ? 0 : run->held;
    return run->opened - run->finished - run->failed - waiting;
}

/* Returns how many clients to open now. */
static size_t due(const struct run *run)
{
    double elapsed = (double)(now_ns() - run->began) / 1e9;
    size_t left = run->options.count - run->opened, wanted;
    if (run->releasing || (run->options.mode != HOLD && elapsed > run->options.seconds))
        return 0;
    if (run->options.mode == PACED) {
        size_t scheduled = (size_t)(elapsed * (double)run->options.rate) + 1;
        wanted = scheduled > run->opened ? scheduled - run->opened : 0;
    } else {
        wanted = run->options.at_once - in_progress(run);
    }
    return wanted < left ? wanted : left;
}

static bool all_opened(const struct run *run)
{
    if (run->options.mode != HOLD && ms_since(run->began) > run->options.seconds * 1e3)
        return true;
    return run->opened == run->options.count;
}

/* Returns the timeout of the next wait in milliseconds. */
static int wait_ms(const struct run *run)
{
    bool pacing = run->options.mode == PACED && !all_opened(run);
    return pacing ? 1 : SILENCE_MS;
}

static void release(struct run *run)
{
    run->releasing = true;
    for (size_t i = 0; i < run->opened; i++)
        if (run->clients[i].step == HELD)
            send_command(run, &run->clients[i], "time", SECOND_ANSWER);
}

/* Handles the events until the timeout; returns false if there was none for SILENCE_MS. */
static bool wait_once(struct run *run)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(run->epoll, events, EVENTS, wait_ms(run));
    for (int i = 0; i < count; i++)
        advance(run, events[i].data.ptr, events[i].events);
    return count > 0 || wait_ms(run) < SILENCE_MS;
}

static void fail_remaining(struct run *run)
{
    for (size_t i = 0; i < run->opened; i++)
        if (run->clients[i].step != CLOSED)
            fail(run, &run->clients[i], "no answer", 0);
}

/* Opens and serves clients until all are opened and none is in progress. */
static void serve(struct run *run)
{
    while (!all_opened(run) || in_progress(run) > 0) {
        for (size_t wanted = due(run); wanted > 0; wanted--)
            open_client(run);
        if (in_progress(run) + due(run) > 0 && !wait_once(run)) {
            fail_remaining(run);
            return;
        }
    }
}

/* Waits for a line on standard input. The loss of a held client is only noticed at its next command. */
static void wait_for_release(const struct run *run)
{
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    fprintf(stderr, "held %zu\n", run->held);
    /* epoll rejects regular files and /dev/null: then only the time limit applies. */
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    epoll_wait(epoll, &event, 1, (int)(run->options.seconds * 1e3));
    close(epoll);
}

static void run_clients(const struct options *options)
{
    struct run run = {.options = *options, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    run.clients = allocate(options->count, sizeof *run.clients);
    run.first_ms = allocate(options->count, sizeof *run.first_ms);
    run.session_ms = allocate(options->count, sizeof *run.session_ms);
    run.began = now_ns();
    serve(&run);
    if (options->mode == HOLD) {
        run.all_held = now_ns();
        wait_for_release(&run);
        release(&run);
        serve(&run);
    }
    run.ended = now_ns();
    print_run(&run);
    free(run.clients);
    free(run.first_ms);
    free(run.session_ms);
}

/* ---- one session ------------------------------------------------------------------------------------------------- */

static int connect_blocking(const struct options *options)
{
    struct timeval limit = {.tv_sec = SILENCE_MS / 1000};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        connect(fd, (const struct sockaddr *)&options->server, sizeof options->server) < 0)
        err(1, "connect");
    return fd;
}

static void exchange(int fd, const char *commands, size_t asked, size_t expected)
{
    static char answers[BATCH_MAX * STAMP];
    if (send(fd, commands, asked, MSG_NOSIGNAL) != (ssize_t)asked)
        err(1, "send");
    for (size_t received = 0; received < expected;) {
        ssize_t got = recv(fd, answers + received, expected - received, 0);
        if (got <= 0)
            errx(1, "no answer from the server: %s", got < 0 ? strerror(errno) : "end of file");
        received += (size_t)got;
    }
}

static void send_quit(int fd)
{
    exchange(fd, "quit", COMMAND, COMMAND);
    close(fd);
}

static bool in_time(const struct options *options, int64_t began)
{
    return ms_since(began) < options->seconds * 1e3;
}

/* Round trips take a few microseconds, so this mode reports them in microseconds. */
static void run_pingpong(const struct options *options)
{
    double *trips_us = allocate(options->count, sizeof *trips_us);
    int fd = connect_blocking(options);
    int64_t began = now_ns();
    size_t trips = 0;
    while (trips < options->count && in_time(options, began)) {
        int64_t asked = now_ns();
        exchange(fd, "time", COMMAND, STAMP);
        trips_us[trips++] = ms_since(asked) * 1e3;
    }
    send_quit(fd);
    printf("{\"mode\": \"pingpong\", \"trips\": %zu, ", trips);
    print_percentiles("trip_us", trips_us, trips);
    printf("}\n");
    free(trips_us);
}

static void run_pipeline(const struct options *options)
{
    static char commands[BATCH_MAX * COMMAND];
    int fd = connect_blocking(options);
    size_t batches = 0;
    int64_t began;
    for (size_t i = 0; i < options->batch; i++)
        memcpy(commands + i * COMMAND, "time", COMMAND);
    for (began = now_ns(); batches < options->count && in_time(options, began); batches++)
        exchange(fd, commands, options->batch * COMMAND, options->batch * STAMP);
    printf("{\"mode\": \"pipeline\", \"batches\": %zu, \"batch\": %zu, \"commands_per_second\": %.1f}\n",
           batches, options->batch, (double)(batches * options->batch) * 1e3 / ms_since(began));
    send_quit(fd);
}

/* ---- command line ------------------------------------------------------------------------------------------------ */

static const struct option flags[] = {
    {"host", required_argument, NULL, 'h'},    {"port", required_argument, NULL, 'p'},
    {"count", required_argument, NULL, 'n'},   {"at-once", required_argument, NULL, 'c'},
    {"rate", required_argument, NULL, 'r'},    {"batch", required_argument, NULL, 'b'},
    {"seconds", required_argument, NULL, 't'}, {NULL, 0, NULL, 0},
};

static size_t parse_number(const char *text, size_t most)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || value == 0 || value > most)
        errx(2, "%s: expected a number from 1 to %zu", text, most);
    return value;
}

static enum mode mode_of(const char *name)
{
    for (int mode = 0; mode < MODES; mode++)
        if (name && strcmp(name, mode_names[mode]) == 0)
            return (enum mode)mode;
    errx(2, "usage: load sessions|paced|hold|pingpong|pipeline --port N [--host A] [--count N] [--at-once N] "
            "[--rate N] [--batch N] [--seconds T]");
}

static void set_option(struct options *options, int flag, const char *value)
{
    switch (flag) {
    case 'h':
        if (inet_pton(AF_INET, value, &options->server.sin_addr) != 1)
            errx(2, "%s: expected an IPv4 address", value);
        break;
    case 'p': options->server.sin_port = htons((uint16_t)parse_number(value, 65535)); break;
    case 'n': options->count = parse_number(value, 10000000); break;
    case 'c': options->at_once = parse_number(value, 100000); break;
    case 'r': options->rate = parse_number(value, 100000); break;
    case 'b': options->batch = parse_number(value, BATCH_MAX); break;
    case 't': options->seconds = (double)parse_number(value, 3600); break;
    default: exit(2);
    }
}

static struct options parse(int argc, char **argv)
{
    struct options options = {.server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
                              .count = 1000, .at_once = 32, .rate = 20, .batch = 64, .seconds = 60};
    options.mode = mode_of(argv[1]);
    optind = 2;
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;)
        set_option(&options, flag, optarg);
    if (options.server.sin_port == 0)
        errx(2, "--port is required");
    if (options.mode == PACED)
        options.count = options.rate * (size_t)options.seconds;
    return options;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    struct options options = parse(argc, argv);
    raise_descriptor_limit();
    if (options.mode == PINGPONG)
        run_pingpong(&options);
    else if (options.mode == PIPELINE)
        run_pipeline(&options);
    else
        run_clients(&options);
    return 0;
}
