// Runs the images of an unpacked kit (fertools verify EXPORT --kit kit.zip) through its model files with
// onnxruntime's C API, and compares the answers with those in the kit. The same calls predict a camera's faces:
// uint8 (batch, 48, 48, 1) in, float32 (batch, 7) out, nothing to scale or to look up.
//
//   check KIT [THREADS]
//
// The exit code is 1 if a file gives another class on more than 0.5% of the images. Which file it is, by its
// SHA-256, only check.py looks at.

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace fs = std::filesystem;

constexpr std::size_t kPixels = 48 * 48;
constexpr std::size_t kClasses = 7;
constexpr double kSameClass = 0.995;

static const OrtApi* ort = nullptr;

static void must(OrtStatus* status) {
  if (status == nullptr) return;
  std::string message = ort->GetErrorMessage(status);
  ort->ReleaseStatus(status);
  throw std::runtime_error(message);
}

template <typename T>
static std::vector<T> read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  const T* begin = reinterpret_cast<const T*>(bytes.data());
  return std::vector<T>(begin, begin + bytes.size() / sizeof(T));
}

// One face, uint8 48x48, to seven probabilities.
static std::vector<float> predict(OrtSession* session, OrtMemoryInfo* memory, std::uint8_t* face) {
  const std::int64_t shape[] = {1, 48, 48, 1};
  OrtValue* input = nullptr;
  must(ort->CreateTensorWithDataAsOrtValue(memory, face, kPixels, shape, 4,
                                           ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &input));
  const char* inputs[] = {"image"};
  const char* outputs[] = {"probabilities"};
  OrtValue* output = nullptr;
  OrtStatus* status = ort->Run(session, nullptr, inputs, &input, 1, outputs, 1, &output);
  ort->ReleaseValue(input);
  must(status);
  float* values = nullptr;
  must(ort->GetTensorMutableData(output, reinterpret_cast<void**>(&values)));
  std::vector<float> probabilities(values, values + kClasses);
  ort->ReleaseValue(output);
  return probabilities;
}

static bool check(OrtEnv* env, const fs::path& model, std::vector<std::uint8_t>& images,
                  const std::vector<float>& expected, int threads) {
  OrtSessionOptions* options = nullptr;
  must(ort->CreateSessionOptions(&options));
  must(ort->SetIntraOpNumThreads(options, threads));
  OrtSession* session = nullptr;
  OrtStatus* status = ort->CreateSession(env, model.c_str(), options, &session);
  ort->ReleaseSessionOptions(options);
  must(status);
  OrtMemoryInfo* memory = nullptr;
  must(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));

  const std::size_t count = images.size() / kPixels;
  std::size_t same = 0;
  float difference = 0;
  std::vector<double> milliseconds;
  for (int i = 0; i < 10; ++i) predict(session, memory, images.data());  // warm-up
  for (std::size_t i = 0; i < count; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<float> found = predict(session, memory, images.data() + i * kPixels);
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
    milliseconds.push_back(taken.count());
    const float* wanted = expected.data() + i * kClasses;
    const auto best = std::max_element(found.begin(), found.end()) - found.begin();
    // NaN is not less than anything, so the first class would count as the largest.
    const bool finite =
        std::all_of(found.begin(), found.end(), [](float value) { return std::isfinite(value); });
    same += finite && best == std::max_element(wanted, wanted + kClasses) - wanted;
    for (std::size_t k = 0; k < kClasses; ++k)
      difference = std::max(difference, std::isfinite(found[k]) ? std::fabs(found[k] - wanted[k]) : 1.0f);
  }
  ort->ReleaseMemoryInfo(memory);
  ort->ReleaseSession(session);
  std::nth_element(milliseconds.begin(), milliseconds.begin() + count / 2, milliseconds.end());
  const double share = static_cast<double>(same) / static_cast<double>(count);
  std::printf("%-20s same class %6.2f%%  largest difference %.1e  %.2f ms/image%s\n",
              model.filename().string().c_str(), 100 * share, difference, milliseconds[count / 2],
              share < kSameClass ? "  FAILS" : "");
  return share >= kSameClass;
}

int main(int argc, char** argv) try {
  if (argc < 2) throw std::runtime_error("usage: check KIT [THREADS]");
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (ort == nullptr) throw std::runtime_error("this onnxruntime is older than the header it was compiled with");
  std::printf("onnxruntime %s\n", OrtGetApiBase()->GetVersionString());
  const fs::path kit = argv[1];
  std::vector<std::uint8_t> images = read<std::uint8_t>(kit / "images.u8");
  OrtEnv* env = nullptr;
  must(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "check", &env));
  int files = 0;
  bool good = true;
  for (const auto& entry : fs::directory_iterator(kit)) {
    if (entry.path().extension() != ".f32") continue;
    const std::vector<float> expected = read<float>(entry.path());
    if (images.empty() || expected.size() / kClasses != images.size() / kPixels)
      throw std::runtime_error("the kit is not whole; copy it again");
    good &= check(env, fs::path(entry.path()).replace_extension(), images, expected, argc > 2 ? std::atoi(argv[2]) : 1);
    ++files;
  }
  ort->ReleaseEnv(env);
  if (files == 0) throw std::runtime_error(kit.string() + ": no kit; unpack the zip there");
  return good ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "Error: %s\n", error.what());
  return 1;
}
