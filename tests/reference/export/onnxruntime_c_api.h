// What the example in C++ uses of onnxruntime's C interface, declared anew for its test: no package that tests may install has
// the header. The table of functions only ever grows at its end (onnxruntime promises that), so places in it are facts.
#pragma once
#include <cstddef>
#include <cstdint>

struct OrtEnv;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtValue;
enum OrtLoggingLevel { ORT_LOGGING_LEVEL_ERROR = 3 };
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1 };

struct OrtApi {
  void* places_0[2];
  const char* (*GetErrorMessage)(const OrtStatus*);  // 2
  OrtStatus* (*CreateEnv)(OrtLoggingLevel, const char*, OrtEnv**);
  void* places_4[3];
  OrtStatus* (*CreateSession)(const OrtEnv*, const char*, const OrtSessionOptions*, OrtSession**);  // 7
  void* places_8[1];
  OrtStatus* (*Run)(OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, size_t, const char* const*, size_t,
                    OrtValue**);  // 9
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions**);
  void* places_11[38];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, ONNXTensorElementDataType,
                                               OrtValue**);  // 49
  void* places_50[1];
  OrtStatus* (*GetTensorMutableData)(OrtValue*, void**);  // 51
  void* places_52[17];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo**);  // 69
  void* places_70[22];
  void (*ReleaseEnv)(OrtEnv*);  // 92
  void (*ReleaseStatus)(OrtStatus*);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo*);
  void (*ReleaseSession)(OrtSession*);
  void (*ReleaseValue)(OrtValue*);  // 96
  void* places_97[3];
  void (*ReleaseSessionOptions)(OrtSessionOptions*);  // 100
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t);
  const char* (*GetVersionString)();
};
extern "C" const OrtApiBase* OrtGetApiBase();
