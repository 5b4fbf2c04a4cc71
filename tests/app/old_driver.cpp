// Stands in for the library of a driver (libcuda.so.1) that is older than any toolkit in use.

extern "C" {

int cuDriverGetVersion(int* version);
int cuDriverGetVersion(int* version) {
  *version = 11040;
  return 0;
}

int cuInit(unsigned flags);
int cuInit(unsigned) { return 0; }

}  // extern "C"
