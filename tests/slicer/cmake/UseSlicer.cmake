# What an extension includes as ${Slicer_USE_FILE}: here only the testing that it switches on.
include(CTest)
