/*
 * tap-loop: a ceiling, not a router. Two TAP devices, and every frame that comes out of one is written to the other,
 * unchanged: read(2), write(2), poll(2) when both are empty. No parsing, no table, no checksum: the least that any user
 * space program must do that forwards between TAPs with a system call a frame.
 *
 *   tap-loop DEVICE DEVICE [header]     prints "ready"; ends by a signal
 *
 * header: the devices put virtio's header in front of each frame (IFF_VNET_HDR), as they must for whoever wants super-frames
 * and partial checksums. It is passed on with the frame.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int open_tap(const char *name, int header) {
  struct ifreq request;
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (fd < 0) return -1;
  memset(&request, 0, sizeof request);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | (header ? IFF_VNET_HDR : 0);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return ioctl(fd, TUNSETIFF, &request) < 0 ? -1 : fd;
}

int main(int argc, char **argv) {
  static char frame[65536];
  struct pollfd ends[2];
  if (argc != 3 && (argc != 4 || strcmp(argv[3], "header") != 0)) return 2;
  for (int n = 0; n < 2; n++) {
    ends[n].fd = open_tap(argv[n + 1], argc == 4);
    ends[n].events = POLLIN;
    if (ends[n].fd < 0) {
      perror(argv[n + 1]);
      return 1;
    }
  }
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    int moved = 0;
    for (int n = 0; n < 2; n++) {
      for (int burst = 0; burst < 256; burst++) {
        ssize_t length = read(ends[n].fd, frame, sizeof frame);
        if (length <= 0) {
          /* EIO: the device is not up yet. */
          if (errno != EAGAIN && errno != EINTR && errno != EIO) return 1;
          break;
        }
        if (write(ends[1 - n].fd, frame, length) < 0 && errno == EBADFD) return 1;
        moved++;
      }
    }
    if (moved == 0) poll(ends, 2, 1000);
  }
}
