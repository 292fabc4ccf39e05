/*
 * udp-ping: round-trip times of small UDP datagrams. Not a peer: the yardstick of tap.latency, in C so that it adds
 * little of its own.
 *
 *   udp-ping serve PORT                          echoes; prints "ready"; ends by a signal
 *   udp-ping ask ADDRESS PORT COUNT MICROSECONDS one datagram every so often, each awaited for at most 100 ms; prints one
 *                                                line of JSON: received, p50, p99 (seconds)
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static int order(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int serve(int port) {
  char data[2048];
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (bind(fd, (struct sockaddr *)&peer, sizeof peer) < 0) return 1;
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    socklen_t size = sizeof peer;
    ssize_t length = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&peer, &size);
    if (length >= 0) sendto(fd, data, length, 0, (struct sockaddr *)&peer, size);
  }
}

static int ask(const char *address, int port, int count, int pause) {
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct timeval limit = {0, 100000};
  double *times = malloc(sizeof(double) * count);
  int received = 0;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (inet_pton(AF_INET, address, &peer.sin_addr) != 1 || connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0) return 1;
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  for (int n = 0; n < count; n++) {
    int got = -1;
    double begin = now();
    if (send(fd, &n, sizeof n, 0) < 0) continue;
    /* A late answer to an earlier question is not this one's. */
    while (recv(fd, &got, sizeof got, 0) == sizeof got && got != n)
      ;
    if (got == n) times[received++] = now() - begin;
    usleep(pause);
  }
  qsort(times, received, sizeof(double), order);
  if (received == 0) return 1;
  printf("{\"received\":%d,\"p50\":%.9f,\"p99\":%.9f}\n", received, times[received / 2], times[received * 99 / 100]);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(atoi(argv[2]));
  if (argc == 6 && strcmp(argv[1], "ask") == 0) return ask(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
  return 2;
}
