# hemostat_batches(<target> <name> <source>…): compiles sources together, at most six at a time, so that what each costs
# before its own first line (the precompiled header, templates that all use) is paid once a batch. Batches are small,
# and none crosses <name>, so that an edit compiles little again. Names in a batch's unnamed namespaces must differ.
function(hemostat_batches target name)
  if(NOT HEMOSTAT_BATCHES OR NOT ARGN)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  list(LENGTH ARGN count)
  math(EXPR batches "(${count} + 5) / 6")
  set(index 0)
  foreach(source IN LISTS ARGN)
    math(EXPR batch "${index} * ${batches} / ${count}")
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${name}_${batch})
    math(EXPR index "${index} + 1")
  endforeach()
endfunction()
