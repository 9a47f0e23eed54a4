// Doubly linked list whose links live in its members: no allocation, O(1) removal.
#pragma once

#include <cstddef>

#include "base/abandon.hpp"
#include "base/assert.hpp"

namespace udm {

class ListHook {
  public:
    ListHook() = default;
    ListHook(const ListHook&) = delete;
    ListHook& operator=(const ListHook&) = delete;
    ~ListHook() { ASSERT(!linked() || Abandoning::now()); }
    bool linked() const noexcept { return next_ != nullptr; }
    // Leaves whatever list it is on.
    void unlink() noexcept {
        ASSERT(linked());
        prev_->next_ = next_;
        next_->prev_ = prev_;
        next_ = prev_ = nullptr;
    }

  private:
    template <class T>
    friend class List;
    ListHook* next_ = nullptr;
    ListHook* prev_ = nullptr;
};

// T derives from ListHook (publicly, once). The list does not own its members.
template <class T>
class List {
  public:
    List() noexcept { reset(); }
    List(const List&) = delete;
    List& operator=(const List&) = delete;
    ~List() {
        ASSERT(empty() || Abandoning::now());
        head_.next_ = head_.prev_ = nullptr;
    }

    bool empty() const noexcept { return head_.next_ == &head_; }
    T& front() noexcept {
        ASSERT(!empty());
        return *static_cast<T*>(head_.next_);
    }
    void push_back(T& item) noexcept { insert_before(head_, item); }
    void push_front(T& item) noexcept { insert_before(*head_.next_, item); }
    T& pop_front() noexcept {
        T& item = front();
        static_cast<ListHook&>(item).unlink();
        return item;
    }
    T* pop_front_or_null() noexcept { return empty() ? nullptr : &pop_front(); }
    static void remove(T& item) noexcept { static_cast<ListHook&>(item).unlink(); }
    // Appends all of `other`, in order, and leaves it empty.
    void take_all(List& other) noexcept {
        if (other.empty()) return;
        ListHook* first = other.head_.next_;
        ListHook* last = other.head_.prev_;
        first->prev_ = head_.prev_;
        head_.prev_->next_ = first;
        last->next_ = &head_;
        head_.prev_ = last;
        other.reset();
    }
    // Forgets the members without touching them: only for a simulated power cut.
    void abandon() noexcept { reset(); }

    class Iterator {
      public:
        explicit Iterator(ListHook* at) noexcept : at_{at} {}
        T& operator*() const noexcept { return *static_cast<T*>(at_); }
        T* operator->() const noexcept { return static_cast<T*>(at_); }
        Iterator& operator++() noexcept {
            at_ = List::next_of(at_);
            return *this;
        }
        bool operator==(const Iterator&) const = default;

      private:
        ListHook* at_;
    };
    // To remove the member at hand while iterating, step on first.
    Iterator begin() noexcept { return Iterator{head_.next_}; }
    Iterator end() noexcept { return Iterator{&head_}; }

  private:
    static ListHook* next_of(ListHook* hook) noexcept { return hook->next_; }
    void reset() noexcept { head_.next_ = head_.prev_ = &head_; }
    static void insert_before(ListHook& where, T& item) noexcept {
        ListHook& hook = item;
        ASSERT(!hook.linked());
        hook.prev_ = where.prev_;
        hook.next_ = &where;
        where.prev_->next_ = &hook;
        where.prev_ = &hook;
    }
    ListHook head_;
};

}  // namespace udm
